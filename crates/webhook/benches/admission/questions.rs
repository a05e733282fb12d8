//! Questions that are held, each on a connection of its own, as waiters ask them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use migrations_protocol::{Answer, Container, QUESTION_PATH, Question, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::server::Server;
use crate::{client, objects};

/// Connections that are made at a time.
const AT_A_TIME: usize = 16;

/// How long the server is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// Held questions.
pub(crate) struct Held(Vec<TlsStream<TcpStream>>);

/// Asks `count` questions whose answers the waiters have already.
pub(crate) async fn hold(server: &Server, count: usize) -> Held {
    let ask = async |index| {
        let mut stream = client::tls(server, server.question, index, "http/1.1").await;
        let token = objects::token(objects::pod_of(index));
        send(&mut stream, &token, None).await;
        let answer = receive(&mut stream).await;
        assert_eq!(answer.verdict, Verdict::Wait);
        send(&mut stream, &token, Some(answer.version)).await;
        stream
    };
    let held = stream::iter(0..count).map(ask).buffer_unordered(AT_A_TIME).collect().await;
    tokio::time::sleep(SETTLE).await;
    Held(held)
}

impl Held {
    /// Records the image as done; returns after what time each question was answered, in order.
    pub(crate) async fn release(self, server: &mut Server) -> Vec<Duration> {
        let tasks: Vec<_> = self
            .0
            .into_iter()
            .map(|mut stream| {
                tokio::spawn(async move {
                    assert_eq!(receive(&mut stream).await.verdict, Verdict::Released);
                    Instant::now()
                })
            })
            .collect();
        // All of them listen.
        tokio::time::sleep(SETTLE / 4).await;
        let begin = Instant::now();
        server.tell(&objects::migrator_done());
        let mut times = Vec::with_capacity(tasks.len());
        for task in tasks {
            times.push(task.await.unwrap() - begin);
        }
        times.sort_unstable();
        times
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, token: &str, seen: Option<String>) {
    let question = Question {
        namespace: objects::NAMESPACE.to_owned(),
        migrator: "matching-0".to_owned(),
        containers: vec![Container { name: "web".to_owned(), image: objects::IMAGE.to_owned() }],
        revision: Some("0f3c1f0e-8d1a-4c53-9f3a-7f1d0c2b4a55/6f8c9d7b5".to_owned()),
        follower: false,
        labels: BTreeMap::new(),
        seen,
    };
    let body = serde_json::to_string(&question).unwrap();
    let request = format!(
        "POST {QUESTION_PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

/// One response, whose body is the one JSON object in it.
async fn receive(stream: &mut TlsStream<TcpStream>) -> Answer {
    let (mut response, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or_default();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&chunk[..read]);
        let body = response.iter().position(|byte| *byte == b'{').map(|begin| &response[begin..]);
        if let Some(answer) = body.and_then(|body| serde_json::from_slice(body).ok()) {
            return answer;
        }
    }
}
