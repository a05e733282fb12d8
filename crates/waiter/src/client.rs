//! Asking: one question to the first server that answers it, over TLS with a pinned authority.

use std::path::PathBuf;
use std::{fs, io};

use migrations_protocol::{Answer, Arguments, CA_FILE, MAX_BODY, QUESTION_PATH, TOKEN_FILE};
use ureq::tls::{Certificate, PemItem, parse_pem};
use ureq::{Agent, Error};

use crate::connect::{Limits, agent};
use crate::fault::Fault;

/// Asks for one Pod.
pub(crate) struct Client {
    arguments: Arguments,
    limits: Limits,
    /// The server that answered last, by its place in the arguments: it is asked first. One that
    /// can't be reached, an address of a family that doesn't work, then costs no time.
    first: usize,
    /// A connection to it that works, with the certificates it trusts. Given up at the first fault.
    open: Option<Open>,
}

struct Open {
    bundle: Vec<u8>,
    agent: Agent,
}

impl Client {
    pub(crate) fn new(arguments: Arguments) -> Self {
        Self::with_limits(arguments, Limits::USUAL)
    }

    fn with_limits(arguments: Arguments, limits: Limits) -> Self {
        Self { arguments, limits, first: 0, open: None }
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
            match ask(&open.agent, self.server(self.first), &asked) {
                Ok(answer) => {
                    self.open = Some(open);
                    return Ok(answer);
                }
                Err(fault) if fault.answered => faults.push(fault),
                // The connection broke, which says little of the server: behind one address there
                // are several, and each may end at any time. It is asked anew.
                Err(_) => {}
            }
        }
        let trusted = certificates(&bundle).map_err(|what| vec![self.bundle_fault(&what)])?;
        for index in in_order(self.arguments.servers.len(), self.first) {
            let server = self.server(index);
            if faults.iter().any(|fault| fault.place == server) {
                continue;
            }
            let agent = agent(server, trusted.clone(), self.limits);
            match ask(&agent, server, &asked) {
                Ok(answer) => {
                    self.first = index;
                    self.open = Some(Open { bundle, agent });
                    return Ok(answer);
                }
                Err(fault) => faults.push(fault),
            }
        }
        Err(faults)
    }

    fn server(&self, index: usize) -> &str {
        self.arguments.servers.get(index).map_or("", String::as_str)
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

/// `first`, then the others as they come.
fn in_order(count: usize, first: usize) -> impl Iterator<Item = usize> {
    std::iter::once(first).chain((0..count).filter(move |index| *index != first))
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
        return Err(Fault::answered(server, format!("HTTP {} {line}", response.status())));
    }
    serde_json::from_slice(&body)
        .map_err(|e| Fault::answered(server, format!("its answer isn't understood ({e})")))
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

#[cfg(test)]
#[path = "client/tests.rs"]
mod tests;
