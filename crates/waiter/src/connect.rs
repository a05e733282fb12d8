//! A connection to one of the webhook's addresses, and how long each step towards it may take.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{io, thread};

use migrations_protocol::HOLD_SECONDS;
use rustls::crypto::ring;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout, RustlsConnector};
use ureq::{Agent, Error};

use crate::wire::Reach;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// To find a name's addresses.
    pub(crate) resolve: Duration,
    /// Until a server takes the connection: its kernel does, so one that is there does it at once.
    /// Enough for one packet to be lost.
    pub(crate) reach: Duration,
    /// The same with the handshake, for which a server may need its turn.
    pub(crate) connect: Duration,
    /// Until the answer is there, all of it, from the start: as long as a server may hold the question,
    /// and some more.
    pub(crate) answer: Duration,
}

impl Limits {
    pub(crate) const USUAL: Self = Self {
        resolve: Duration::from_secs(5),
        reach: Duration::from_secs(2),
        connect: Duration::from_secs(7),
        answer: Duration::from_secs(HOLD_SECONDS + 10),
    };
}

/// An agent that speaks with `server` alone, and takes it for the server that the URL names: its
/// certificate must carry that name, however the server was reached.
pub(crate) fn agent(server: &str, trusted: Vec<Certificate<'static>>, limits: Limits) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    let config = Config::builder()
        .tls_config(tls)
        .proxy(None)
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("migrations-waiter/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(limits.resolve))
        .timeout_connect(Some(limits.connect))
        .timeout_global(Some(limits.answer))
        .build();
    let connector = Reach(limits.reach).chain(RustlsConnector::default());
    Agent::with_parts(config, connector, Only(server.to_owned()))
}

/// Resolves every name to one server. Only where that is a name itself, the cluster's DNS is asked.
#[derive(Debug)]
struct Only(String);

impl Resolver for Only {
    fn resolve(&self, _: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        if let Ok(address) = self.0.parse::<SocketAddr>() {
            found.push(address);
        } else {
            let server = self.0.clone();
            let look_up = move || Ok(server.to_socket_addrs()?.take(MOST).collect());
            within(timeout, look_up)?.into_iter().for_each(|address| found.push(address));
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

/// More addresses than any Service has.
const MOST: usize = 8;

/// The system's resolver may take minutes and can't be stopped: it is left to a thread.
fn within(
    timeout: NextTimeout,
    look_up: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, Error> {
    let (sender, found) = mpsc::sync_channel(1);
    thread::Builder::new().spawn(move || {
        // Nobody waits any more where it took too long.
        let _ = sender.send(look_up());
    })?;
    match found.recv_timeout(*timeout.after) {
        Ok(addresses) => Ok(addresses?),
        Err(RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the resolver failed").into()),
    }
}

#[cfg(test)]
mod tests {
    use ureq::Timeout;
    use ureq::unversioned::transport::time;

    use super::*;

    #[test]
    fn a_resolver_that_is_late_is_left_behind() {
        let (late, never) = mpsc::channel::<()>();
        let timeout = NextTimeout {
            after: time::Duration::from_millis(50),
            reason: Timeout::Resolve,
            ..NextTimeout::default()
        };
        let answer = within(timeout, move || {
            let _ = never.recv();
            Ok(Vec::new())
        });
        assert!(matches!(answer, Err(Error::Timeout(Timeout::Resolve))), "{answer:?}");
        drop(late);
    }

    #[test]
    fn every_step_has_its_own_limit() {
        let limits = Limits::USUAL;
        let timeouts = agent("10.0.0.7:9444", Vec::new(), limits).config().timeouts();
        let [resolve, connect, answer] = [limits.resolve, limits.connect, limits.answer].map(Some);
        assert_eq!((timeouts.resolve, timeouts.connect, timeouts.global), (resolve, connect, answer));
        assert!(resolve < connect && connect < answer);
    }

    #[test]
    fn an_address_needs_no_resolver() {
        let only = Only("[fd00::7]:9444".to_owned());
        let found = only.resolve(&Uri::default(), &Config::default(), NextTimeout::default()).unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[fd00::7]:9444"]);
    }
}
