//! Asking: one question to the first server that answers it, over TLS with a pinned authority.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use migrations_protocol::{Answer, Arguments, CA_FILE, HOLD_SECONDS, MAX_BODY, QUESTION_PATH, TOKEN_FILE};
use rustls::crypto::ring;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use crate::fault::Fault;

/// A server that doesn't answer must not keep us from the next one for long.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take: as long as a server may hold the question, and some more.
const ANSWER: Duration = Duration::from_secs(HOLD_SECONDS + 10);

/// Asks for one Pod.
pub(crate) struct Client {
    arguments: Arguments,
    /// Connections that work, with the certificates they trust. Given up at the first fault.
    open: Option<Open>,
}

struct Open {
    bundle: Vec<u8>,
    server: String,
    agent: Agent,
}

impl Client {
    pub(crate) fn new(arguments: Arguments) -> Self {
        Self { arguments, open: None }
    }

    /// Asks once, at one server after the other. The certificates and the token are read each time:
    /// they are renewed while we wait.
    pub(crate) fn ask(&mut self, seen: Option<String>) -> Result<Answer, Vec<Fault>> {
        let question = self.arguments.question(seen);
        let body = serde_json::to_vec(&question).map_err(|e| vec![Fault::new("question", e.to_string())])?;
        let bundle = fs::read(self.certificates()).map_err(|e| vec![self.bundle_fault(&e)])?;
        let asked =
            Asked { url: self.url(), authorization: self.authorization().map_err(|e| vec![e])?, body };

        let mut faults = Vec::new();
        if let Some(open) = self.open.take().filter(|open| open.bundle == bundle) {
            match ask(&open.agent, &open.server, &asked) {
                Ok(answer) => {
                    self.open = Some(open);
                    return Ok(answer);
                }
                Err(fault) => faults.push(fault),
            }
        }
        let trusted = certificates(&bundle).map_err(|what| vec![self.bundle_fault(&what)])?;
        for server in &self.arguments.servers {
            if faults.iter().any(|fault| fault.place == *server) {
                continue;
            }
            let agent = agent(server, trusted.clone());
            match ask(&agent, server, &asked) {
                Ok(answer) => {
                    self.open = Some(Open { bundle, server: server.clone(), agent });
                    return Ok(answer);
                }
                Err(fault) => faults.push(fault),
            }
        }
        Err(faults)
    }

    fn bundle_fault(&self, what: &impl ToString) -> Fault {
        Fault::new(self.certificates().display().to_string(), what.to_string())
    }

    fn url(&self) -> String {
        format!("https://{}{QUESTION_PATH}", self.arguments.server_name)
    }

    /// The Pod's token, as it is sent. The kubelet may not have written it yet.
    fn authorization(&self) -> Result<String, Fault> {
        let path = self.arguments.files.join(TOKEN_FILE);
        let fault = |what: String| Fault::new(path.display().to_string(), what);
        let token = fs::read_to_string(&path).map_err(|e| fault(e.to_string()))?;
        match token.trim() {
            "" => Err(fault("holds no token (yet)".to_owned())),
            token => Ok(format!("Bearer {token}")),
        }
    }

    fn certificates(&self) -> PathBuf {
        self.arguments.files.join(CA_FILE)
    }
}

/// What every server is asked in one attempt.
struct Asked {
    url: String,
    authorization: String,
    body: Vec<u8>,
}

fn ask(agent: &Agent, server: &str, asked: &Asked) -> Result<Answer, Fault> {
    let fault = |error: Error| Fault::of(server, &error);
    let request = agent.post(&asked.url).content_type("application/json");
    let request = request.header("authorization", &asked.authorization);
    let mut response = request.send(&asked.body[..]).map_err(fault)?;
    let body = response.body_mut().with_config().limit(MAX_BODY as u64).read_to_vec().map_err(fault)?;
    if response.status() != 200 {
        let text = String::from_utf8_lossy(&body);
        let line = text.lines().next().unwrap_or_default();
        return Err(Fault::new(server, format!("HTTP {} {line}", response.status())));
    }
    serde_json::from_slice(&body)
        .map_err(|e| Fault::new(server, format!("its answer isn't understood ({e})")))
}

/// An agent that speaks with `server` alone, and takes it for the server that the URL names: its
/// certificate must carry that name, however the server was reached.
fn agent(server: &str, trusted: Vec<Certificate<'static>>) -> Agent {
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
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(ANSWER))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Only(server.to_owned()))
}

/// Resolves every name to one server.
#[derive(Debug)]
struct Only(String);

impl Resolver for Only {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let server = format!("https://{}", self.0).parse().map_err(|_| Error::BadUri(self.0.clone()))?;
        DefaultResolver::default().resolve(&server, config, timeout)
    }
}

fn certificates(bundle: &[u8]) -> Result<Vec<Certificate<'static>>, io::Error> {
    let found: Vec<_> = parse_pem(bundle)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(io::Error::other("holds no certificate (yet)"));
    }
    Ok(found)
}
