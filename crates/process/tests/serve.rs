//! TLS serving as clients meet it: also the slow, the broken and the many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use migrations_process::serve::{Limits, read_body, serve, text};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_process::tls::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SOON: Duration = Duration::from_secs(3);

const LIMITS: Limits = Limits {
    connections: 100,
    handshake: Duration::from_millis(300),
    headers: Duration::from_millis(300),
    idle: Duration::from_millis(600),
    drain: Duration::from_secs(2),
};

struct Server {
    port: u16,
    authority: String,
    end: Trigger,
    served: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = Certificate::default();
        let (chain, key) = (generated.cert.pem(), generated.signing_key.serialize_pem());
        certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, ended) = Shutdown::by_hand();
        let served =
            tokio::spawn(serve(listener, certificate.server_config().unwrap(), limits, ended, handle));
        Self { port, authority: chain, end, served }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    async fn tls(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await).await.unwrap()
    }
}

async fn handle(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/panic" => panic!("a defect"),
        "/slow" => tokio::time::sleep(Duration::from_secs(1)).await,
        _ => {}
    }
    match read_body(request.into_body(), 10, Duration::from_millis(300)).await {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => text(error.status(), error.to_string()),
    }
}

/// Sends `text` and reads until the answer holds `wanted`.
async fn exchange(stream: &mut TlsStream<TcpStream>, text: &str, wanted: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.contains(wanted) {
        let mut buffer = [0; 1024];
        let read = timeout(SOON, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(read > 0, "closed after {answer:?}");
        answer += &String::from_utf8_lossy(&buffer[..read]);
    }
    answer
}

async fn closes(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut rest = Vec::new();
    // Closed in whichever way.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the server closes it");
}

#[tokio::test]
async fn a_panic_ends_its_request_and_nothing_else() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("http/1.1").await;
    let first = exchange(&mut stream, "GET /panic HTTP/1.1\r\nhost: x\r\n\r\n", "in the log\n").await;
    assert!(first.starts_with("HTTP/1.1 500"), "{first}");
    let second =
        exchange(&mut stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi", "\r\n\r\nhi")
            .await;
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
}

#[tokio::test]
async fn http_2_is_spoken_with_clients_that_speak_it() {
    let server = Server::start(LIMITS).await;
    let stream = TokioIo::new(server.tls("h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str, body: &'static str| {
        Request::post(format!("https://localhost{path}")).body(Full::new(Bytes::from(body))).unwrap()
    };
    let (defect, good) = tokio::join!(
        sender.clone().send_request(request("/panic", "")),
        sender.send_request(request("/", "hi"))
    );
    assert_eq!(defect.unwrap().status(), 500);
    assert_eq!(good.unwrap().into_body().collect().await.unwrap().to_bytes(), "hi");
    let large = sender.send_request(request("/", "more than ten bytes")).await.unwrap();
    assert_eq!(large.status(), 413);
}

#[tokio::test]
async fn nobody_holds_a_connection_for_nothing() {
    let server = Server::start(LIMITS).await;
    let mut without_handshake = server.tcp().await;
    let mut without_request = server.tls("http/1.1").await;
    let mut half_a_request = server.tls("http/1.1").await;
    half_a_request.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut without_a_second = server.tls("http/1.1").await;
    exchange(&mut without_a_second, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n").await;
    let mut idle_http_2 = server.tls("h2").await;
    idle_http_2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    tokio::join!(
        closes(&mut without_handshake),
        closes(&mut without_request),
        closes(&mut half_a_request),
        closes(&mut without_a_second),
        closes(&mut idle_http_2),
    );
}

#[tokio::test]
async fn headers_that_do_not_come_whole_are_not_waited_for() {
    let server = Server::start(Limits { idle: Duration::from_mins(1), ..LIMITS }).await;
    let mut stream = server.tls("http/1.1").await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    closes(&mut stream).await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_a_connection_may_idle() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("http/1.1").await;
    let answer = exchange(&mut stream, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("http/1.1").await;
    let answer =
        exchange(&mut stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhi", "did not arrive")
            .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_budget_wait_for_their_turn() {
    let server = Server::start(Limits { connections: 1, idle: SOON, headers: SOON, ..LIMITS }).await;
    let first = server.tls("http/1.1").await;
    assert!(timeout(Duration::from_millis(300), server.tls("http/1.1")).await.is_err());
    drop(first);
    timeout(SOON, server.tls("http/1.1")).await.expect("its turn");
}

#[tokio::test]
async fn at_the_end_open_requests_are_answered_and_nothing_new_is_accepted() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("http/1.1").await;
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end.request();
    let answer = exchange(&mut stream, "", "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    timeout(SOON, server.served).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(("127.0.0.1", server.port)).await.is_err());
}
