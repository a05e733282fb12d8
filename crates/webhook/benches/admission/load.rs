//! Reviews as fast as they are answered, and what that took.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::server::Server;
use crate::{client, objects};

const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(4);

/// How reviews are sent: on each connection, `streams` at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The version of HTTP.
    pub(crate) protocol: Protocol,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests at a time on each.
    pub(crate) streams: usize,
}

/// The version of HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    /// One request at a time.
    Http1,
    /// What API servers speak.
    Http2,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        })
    }
}

/// What a load took.
pub(crate) struct Measured {
    /// In order.
    latencies: Vec<Duration>,
    cpu: Duration,
    time: Duration,
}

impl Measured {
    /// In milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.latencies.get(self.latencies.len() * percent / 100).unwrap().as_secs_f64() * 1e3
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count() / self.time.as_secs_f64()
    }

    /// The server's processor time for each request, in microseconds.
    pub(crate) fn cpu_each_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count()
    }

    fn count(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).unwrap())
    }
}

impl Load {
    /// Sends reviews for a few seconds.
    pub(crate) async fn run(self, server: &Server) -> Measured {
        let begin = Instant::now() + WARM_UP;
        let end = begin + MEASURED;
        let senders = join_all((0..self.connections).map(|index| self.connect(server, index, begin..end)));
        let (used, connections) = (
            async {
                tokio::time::sleep_until(begin.into()).await;
                let before = server.cpu();
                tokio::time::sleep_until(end.into()).await;
                server.cpu().checked_sub(before).unwrap()
            },
            senders,
        );
        let (cpu, latencies) = tokio::join!(used, connections);
        let mut latencies: Vec<_> = latencies.into_iter().flatten().collect();
        latencies.sort_unstable();
        Measured { latencies, cpu, time: MEASURED }
    }

    /// One connection; returns how long the requests took that were answered in the time.
    async fn connect(self, server: &Server, index: usize, time: std::ops::Range<Instant>) -> Vec<Duration> {
        match self.protocol {
            Protocol::Http2 => {
                let stream = client::tls(server, server.admission, index, "h2").await;
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                let tasks = (0..self.streams).map(|_| {
                    let (mut sender, time) = (sender.clone(), time.clone());
                    tokio::spawn(repeat(time, move |request| sender.send_request(request)))
                });
                join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect()
            }
            Protocol::Http1 => {
                let stream = client::tls(server, server.admission, index, "http/1.1").await;
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                tokio::spawn(repeat(time, move |request| sender.send_request(request))).await.unwrap()
            }
        }
    }
}

async fn repeat<F>(
    time: std::ops::Range<Instant>,
    mut send: impl FnMut(Request<Full<Bytes>>) -> F,
) -> Vec<Duration>
where
    F: Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>>,
{
    let body = Bytes::from(objects::review());
    let mut latencies = Vec::new();
    loop {
        let request = Request::post("https://localhost/admit")
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))
            .unwrap();
        let begin = Instant::now();
        let response = send(request).await.unwrap();
        let status = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        let answered = Instant::now();
        assert!(status == 200 && answer.len() > 1000, "{status}: {answer:?}");
        if time.contains(&answered) {
            latencies.push(answered - begin);
        }
        if answered > time.end {
            return latencies;
        }
    }
}
