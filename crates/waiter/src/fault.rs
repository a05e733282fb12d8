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
