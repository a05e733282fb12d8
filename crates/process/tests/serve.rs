//! TLS serving as clients meet it: also the slow, the broken and the many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use migrations_process::serve::{Limits, read_body, serve, text};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_process::tls::Certificate;
use rstest::rstest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const SOON: Duration = Duration::from_secs(3);

const LIMITS: Limits = Limits {
    connections: 100,
    per_source: 100,
    streams: Some(7),
    body: 10,
    memory: 1024 * 1024,
    memory_per_source: 1024 * 1024,
    handshake: Duration::from_millis(300),
    headers: Duration::from_millis(300),
    request: Duration::from_secs(2),
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
        self.tls_over(self.tcp().await, "localhost", protocol).await.unwrap()
    }

    async fn tls_over(
        &self,
        stream: TcpStream,
        name: &'static str,
        protocol: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn http_2(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = TokioIo::new(self.tls("h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// That it still does what it is there for.
    async fn serves(&self) {
        let mut stream = self.tls("http/1.1").await;
        let answer = exchange(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

fn post(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(format!("https://localhost{path}")).body(Full::new(Bytes::from(body))).unwrap()
}

async fn handle(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/panic" => panic!("a defect"),
        "/slow" => tokio::time::sleep(Duration::from_secs(1)).await,
        "/never" => std::future::pending().await,
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
    let mut sender = server.http_2().await;
    let (defect, good) =
        tokio::join!(sender.clone().send_request(post("/panic", "")), sender.send_request(post("/", "hi")));
    assert_eq!(defect.unwrap().status(), 500);
    assert_eq!(good.unwrap().into_body().collect().await.unwrap().to_bytes(), "hi");
    let large = sender.send_request(post("/", "more than ten bytes")).await.unwrap();
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

#[rstest]
#[case::handshake(None, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")]
#[case::headers(Some("http/1.1"), b"GET / HTTP/1.1\r\nhost: x\r\n")]
#[case::body(
    Some("http/1.1"),
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nconnection: close\r\n\r\n1"
)]
#[case::preface_of_http_2(Some("h2"), b"PRI * HTTP/2.0\r\n\r\nSM")]
#[case::headers_of_http_2(
    Some("h2"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x05\0\0\0\x01"
)]
#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_not_waited_for(
    #[case] protocol: Option<&str>,
    #[case] bytes: &[u8],
) {
    let server = Server::start(LIMITS).await;
    let stream = server.tcp().await;
    match protocol {
        None => trickle(stream, bytes).await,
        Some(protocol) => {
            let mut stream = server.tls_over(stream, "localhost", protocol).await.unwrap();
            let (begin, rest) = bytes.split_at(bytes.len() - 8);
            stream.write_all(begin).await.unwrap();
            trickle(stream, rest).await;
        }
    }
    server.serves().await;
}

/// Sends a byte every now and then, for longer than anything may take, until the server closes.
async fn trickle(stream: impl AsyncRead + AsyncWrite, bytes: &[u8]) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let trickling = async {
        for byte in bytes.iter().chain(std::iter::repeat(&b'x')) {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            let _ = writer.flush().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = trickling => {}
        () = closes(&mut reader) => {}
    }
}

#[rstest]
#[case::instead_of_a_handshake(None)]
#[case::instead_of_http_1(Some("http/1.1"))]
#[case::instead_of_http_2(Some("h2"))]
#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else(#[case] protocol: Option<&str>) {
    let server = Server::start(LIMITS).await;
    let garbage = [0xa5; 4096];
    let mut tcp = server.tcp().await;
    match protocol {
        None => {
            tcp.write_all(&garbage).await.unwrap();
            closes(&mut tcp).await;
        }
        Some(protocol) => {
            let mut stream = server.tls_over(tcp, "localhost", protocol).await.unwrap();
            stream.write_all(&garbage).await.unwrap();
            closes(&mut stream).await;
        }
    }
    server.serves().await;
}

#[tokio::test]
async fn headers_beyond_16_kib_are_refused() {
    let server = Server::start(LIMITS).await;
    let large = "x".repeat(20 * 1024);
    let mut stream = server.tls("http/1.1").await;
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {large}\r\n\r\n");
    let answer = exchange(&mut stream, &request, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");

    let mut sender = server.http_2().await;
    let mut request = post("/", "hi");
    request.headers_mut().insert("large", large.parse().unwrap());
    let answer = sender.send_request(request).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == 431));
    server.serves().await;
}

#[tokio::test]
async fn who_wants_another_name_goes_and_others_are_served() {
    let server = Server::start(LIMITS).await;
    let other = server.tls_over(server.tcp().await, "other.example", "http/1.1").await;
    assert!(other.is_err());
    server.serves().await;
}

#[tokio::test]
async fn a_flood_of_requests_taken_back_ends_its_connection() {
    let server = Server::start(Limits { idle: Duration::from_mins(1), ..LIMITS }).await;
    let mut stream = server.tls("h2").await;
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2000_u32).step_by(2) {
        // GET / of authority x, then RST_STREAM with CANCEL.
        flood.extend(b"\0\0\x06\x01\x05");
        flood.extend(stream.to_be_bytes());
        flood.extend(b"\x82\x87\x84\x41\x01x\0\0\x04\x03\0");
        flood.extend(stream.to_be_bytes());
        flood.extend(b"\0\0\0\x08");
    }
    // The server may close before all of it is written.
    let _ = stream.write_all(&flood).await;
    closes(&mut stream).await;
    server.serves().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_so() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("http/1.1").await;
    let answer = exchange(&mut stream, "GET /never HTTP/1.1\r\nhost: x\r\n\r\n", "too long").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn a_request_beyond_the_memory_for_them_is_told_to_try_again() {
    let two = 2 * (16 * 1024 + 2);
    let server = Server::start(Limits { memory: two + 1, ..LIMITS }).await;
    let mut sender = server.http_2().await;
    let slow: Vec<_> = (0..2).map(|_| tokio::spawn(sender.send_request(post("/slow", "hi")))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = sender.send_request(post("/", "hi")).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"1"[..]));
    for slow in slow {
        assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(sender.send_request(post("/", "hi")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_without_a_length_counts_for_the_largest() {
    let limits = Limits { body: 5000, memory_per_source: 16 * 1024 + 4999, ..LIMITS };
    let server = Server::start(limits).await;
    let mut stream = server.tls("http/1.1").await;
    let request = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let answer = exchange(&mut stream, request, "try again").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    server.serves().await;
}

#[tokio::test]
async fn a_listener_of_http_1_speaks_nothing_else() {
    let server = Server::start(Limits { streams: None, ..LIMITS }).await;
    assert!(server.tls_over(server.tcp().await, "localhost", "h2").await.is_err());
    server.serves().await;
}

/// With a place for each, their idle time is long.
const PATIENT: Limits = Limits { idle: Duration::from_mins(1), headers: Duration::from_mins(1), ..LIMITS };

#[tokio::test]
async fn where_all_places_are_in_use_a_further_connection_waits_for_its_turn() {
    let server = Server::start(Limits { connections: 1, ..PATIENT }).await;
    let mut first = server.tls("http/1.1").await;
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(timeout(Duration::from_millis(300), server.tls("http/1.1")).await.is_err());
    assert!(exchange(&mut first, "", "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    timeout(SOON, server.serves()).await.expect("its turn");
}

#[tokio::test]
async fn a_connection_without_a_request_makes_room_for_another() {
    let server = Server::start(Limits { connections: 1, ..PATIENT }).await;
    let mut idle = server.tls("http/1.1").await;
    timeout(SOON, server.serves()).await.expect("its turn");
    closes(&mut idle).await;
}

#[tokio::test]
async fn the_one_without_a_request_for_longest_makes_room_and_the_limit_stays() {
    let server = Server::start(Limits { connections: 2, ..PATIENT }).await;
    let mut longest = server.tls("http/1.1").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let elsewhere = socket.connect(([127, 0, 0, 1], server.port).into()).await.unwrap();
    let mut other = server.tls_over(elsewhere, "localhost", "http/1.1").await.unwrap();
    // Now both could be sent away.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut further = timeout(SOON, server.tls("http/1.1")).await.expect("its turn");
    closes(&mut longest).await;
    for stream in [&mut other, &mut further] {
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(timeout(Duration::from_millis(300), server.tls("http/1.1")).await.is_err());
    for stream in [&mut other, &mut further] {
        assert!(exchange(stream, "", "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn one_source_has_its_share_of_places_and_others_have_theirs() {
    let server = Server::start(Limits { per_source: 1, ..PATIENT }).await;
    let mut first = server.tls("http/1.1").await;
    first.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = timeout(SOON, server.tls_over(server.tcp().await, "localhost", "http/1.1")).await;
    assert!(second.expect("it is closed at once").is_err());

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let elsewhere = socket.connect(([127, 0, 0, 1], server.port).into()).await.unwrap();
    server.tls_over(elsewhere, "localhost", "http/1.1").await.unwrap();
    assert!(exchange(&mut first, "", "\r\n\r\n").await.starts_with("HTTP/1.1 200"));

    // The first has had no request for a while, so it makes room.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.serves().await;
    closes(&mut first).await;
}

#[tokio::test]
async fn an_http_2_client_is_told_its_limits_and_before_it_is_cut_off_for_idling() {
    let server = Server::start(LIMITS).await;
    let mut stream = server.tls("h2").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frames = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut frames)).await.expect("the server closes it");
    assert!(kinds(&frames).contains(&GOAWAY), "{frames:?}");
    // Its settings have said how many requests it may send at a time.
    assert!(frames.windows(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{frames:?}");
}

/// Its host may be gone, and nobody tells.
#[tokio::test]
async fn an_http_2_client_that_answers_no_ping_is_not_waited_for() {
    let server = Server::start(Limits { request: Duration::from_hours(1), ..LIMITS }).await;
    let mut stream = server.tls("h2").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // GET /never of authority x.
    stream.write_all(b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x87\x04\x06/never\x41\x01x").await.unwrap();
    let mut frames = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut frames)).await.expect("the server closes it");
    assert!(kinds(&frames).contains(&PING), "{frames:?}");
}

const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// The types of HTTP/2 frames.
fn kinds(mut frames: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, _flags, _, _, _, _, rest @ ..] = frames {
        kinds.push(*kind);
        frames = rest.get(u32::from_be_bytes([0, *a, *b, *c]) as usize..).unwrap_or_default();
    }
    kinds
}

#[tokio::test]
async fn at_the_end_http_2_requests_are_answered_and_their_client_is_told_to_go() {
    let server = Server::start(LIMITS).await;
    let mut sender = server.http_2().await;
    sender.send_request(post("/", "hi")).await.unwrap();
    let slow = tokio::spawn(sender.send_request(post("/slow", "hi")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end.request();
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    timeout(SOON, server.served).await.expect("it ends").unwrap();
    assert!(sender.send_request(post("/", "hi")).await.is_err());
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

#[tokio::test]
async fn at_the_end_requests_without_an_end_are_cut_off() {
    let limits = Limits { request: Duration::from_hours(1), drain: Duration::from_millis(300), ..PATIENT };
    let server = Server::start(limits).await;
    let mut stream = server.tls("http/1.1").await;
    stream.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end.request();
    timeout(SOON, server.served).await.expect("it ends").unwrap();
    closes(&mut stream).await;
}
