//! Why no answer came, in words that say what to look at.

use std::fmt;
use std::io::ErrorKind;

use migrations_protocol::HOLD_SECONDS;
use ureq::{Error, Timeout};

/// What is wrong with one server, or with what is needed to ask any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where it happened: a server or a file.
    pub(crate) place: String,
    /// What happened.
    pub(crate) what: String,
    /// Whether nothing at all came back: what a firewall looks like.
    pub(crate) silent: bool,
    /// Whether the server did answer, though not with what was asked for.
    pub(crate) answered: bool,
}

impl Fault {
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), silent: false, answered: false }
    }

    /// What a server said instead of an answer.
    pub(crate) fn answered(server: &str, what: String) -> Self {
        Self { answered: true, ..Self::new(server, what) }
    }

    /// What a server's error means.
    pub(crate) fn of(server: &str, error: &Error) -> Self {
        let silent = matches!(error, Error::Timeout(Timeout::Connect))
            || matches!(error, Error::Io(e) if e.kind() == ErrorKind::TimedOut);
        let what = match error {
            _ if silent => "the connection timed out".to_owned(),
            Error::Timeout(Timeout::Resolve) => "its name wasn't found in time".to_owned(),
            Error::Timeout(_) => format!("no answer in {HOLD_SECONDS} s and some more"),
            Error::HostNotFound => "its name isn't known to the cluster's DNS".to_owned(),
            Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            Error::Rustls(e) => untrusted(e),
            Error::Io(e) => match e.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(e) => untrusted(e),
                None => e.to_string(),
            },
            other => other.to_string(),
        };
        Self { silent, ..Self::new(server, what) }
    }
}

fn untrusted(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => format!("its certificate is not trusted ({error})"),
        other => format!("no TLS connection: {other}"),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::never_reached(Error::Timeout(Timeout::Connect), "the connection timed out", true)]
    #[case::given_up_by_the_kernel(Error::Io(ErrorKind::TimedOut.into()), "the connection timed out", true)]
    #[case::reached_and_no_answer(Error::Timeout(Timeout::Global), "no answer in 25 s and some more", false)]
    #[case::dns_is_late(Error::Timeout(Timeout::Resolve), "its name wasn't found in time", false)]
    #[case::dns_says_no(Error::HostNotFound, "its name isn't known to the cluster's DNS", false)]
    #[case::refused(Error::Io(ErrorKind::ConnectionRefused.into()), "connection refused", false)]
    #[case::reset(Error::Io(ErrorKind::ConnectionReset.into()), "connection reset", false)]
    #[case::untrusted(
        Error::Io(io::Error::other(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer
        ))),
        "its certificate is not trusted",
        false
    )]
    #[case::no_tls(
        Error::Io(io::Error::other(rustls::Error::HandshakeNotComplete)),
        "no TLS connection",
        false
    )]
    fn a_fault_says_what_to_look_at(#[case] error: Error, #[case] what: &str, #[case] silent: bool) {
        let fault = Fault::of("10.0.0.1:9444", &error);
        assert!(fault.what.starts_with(what), "{fault}");
        assert_eq!((fault.silent, fault.answered), (silent, false));
    }
}
