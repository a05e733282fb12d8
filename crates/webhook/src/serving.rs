//! The two TLS listeners. Each has a budget of its own, so that no number of waiters keeps Pods from
//! being admitted (contract §7).

use std::time::Duration;

use migrations_process::serve::{Limits, serve};
use migrations_process::shutdown::Shutdown;
use migrations_process::tls::Certificate;
use migrations_protocol::{HOLD_SECONDS, MAX_BODY};
use tokio::net::TcpListener;

use crate::admission::{self, Admission};
use crate::question::Questions;

/// API servers keep a connection for each entry that they call, and send many requests over each.
/// They may come from behind one address; half of the places is for others all the same.
const ADMISSION: Limits = Limits {
    connections: 1000,
    per_source: 500,
    streams: Some(100),
    // Nearly 800 reviews of 5 KB from one address, or four of the largest.
    body: admission::LIMIT,
    memory: 32 * 1024 * 1024,
    memory_per_source: 16 * 1024 * 1024 + 512 * 1024,
    handshake: Duration::from_secs(5),
    headers: Duration::from_secs(30),
    request: Duration::from_secs(30),
    idle: Duration::from_mins(2),
    drain: Duration::from_secs(10),
};

/// What a held question may take, in bytes: as a rule less than 1 KiB of it is the question.
const QUESTION: usize = 24 * 1024;

/// Each waiter has a connection, with a question on it nearly all the time.
fn questions_limits(connections: usize) -> Limits {
    // Where Services masquerade, the Pods of a node share its address: there are 250 at most.
    let per_source = 256;
    Limits {
        connections,
        per_source,
        // Waiters speak HTTP/1.1.
        streams: None,
        body: MAX_BODY,
        memory: (connections * QUESTION).max(per_source * QUESTION),
        memory_per_source: per_source * QUESTION,
        handshake: Duration::from_secs(10),
        headers: Duration::from_secs(10),
        request: Duration::from_secs(HOLD_SECONDS + 15),
        idle: Duration::from_secs(30),
        drain: Duration::from_secs(5),
    }
}

/// Serves both until `end` is requested and what is open has been answered. At most `waiters` hold a
/// connection at a time.
pub async fn serve_both(
    certificate: &Certificate,
    end: &Shutdown,
    waiters: usize,
    (admissions, admission): (TcpListener, Admission),
    (questions, question): (TcpListener, Questions),
) -> Result<(), rustls::Error> {
    let tls = certificate.server_config()?;
    let admit = move |request| {
        let admission = admission.clone();
        async move { admission.handle(request).await }
    };
    let answer = move |request| {
        let question = question.clone();
        async move { question.handle(request).await }
    };
    tokio::join!(
        serve(admissions, tls.clone(), ADMISSION, end.clone(), admit),
        serve(questions, tls, questions_limits(waiters), end.clone(), answer),
    );
    Ok(())
}
