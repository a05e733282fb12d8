//! A crowd at the question port, and admission beside it.

use std::net::{Ipv4Addr, SocketAddr};

use futures::StreamExt;
use futures::stream;
use migrations_process::open_files;
use tokio::net::{TcpSocket, TcpStream};

use crate::shell::{Shell, selecting_shop};

/// As many as the contract speaks of.
const CROWD: usize = 10_000;

/// From one address, as the Pods of one node may come.
const SHARING: usize = 250;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_to_the_question_port_do_not_keep_pods_from_admission() {
    // Both ends are in this process, and it needs some more.
    let files = open_files::allow_as_many_as_possible().and_then(|files| usize::try_from(files).ok());
    let crowd = CROWD.min(files.unwrap_or(1024).saturating_sub(600) / 2);
    let shell = Shell::for_waiters(crowd).await;
    shell.apply("shop", &selecting_shop(), &serde_json::Value::Null);
    let connect = |index| idle(shell.question, index);
    let idle: Vec<_> = stream::iter(0..crowd).map(connect).buffer_unordered(100).collect().await;
    for _ in 0..10 {
        let review = crate::admission::review(&serde_json::json!({}));
        let (status, body) = shell.post(shell.admission, "/admit", review.to_string()).await;
        assert_eq!(status, 200);
        assert!(body.contains("JSONPatch"), "{body}");
    }
    drop(idle);
}

async fn idle(port: u16, index: usize) -> TcpStream {
    let [high, low] = u16::try_from(index / SHARING + 1).unwrap().to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, high, low), 0))).unwrap();
    socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap()
}
