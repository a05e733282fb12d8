//! The kubelet's probes and Prometheus' metrics, on one plain HTTP port: `/livez`, `/readyz` and
//! `/metrics`. It serves no traffic of users and answers without asking anyone.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::serve::places::{Activity, Places};

/// How long a client may take to send its request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections at a time. One that has no request for a while makes room for another.
const CONNECTIONS: usize = 64;

/// Connections at a time from one source address, so that none keeps the kubelet out.
const PER_SOURCE: usize = 8;

/// Largest headers of a request, in bytes: the least that there is.
const HEADERS: usize = 8 * 1024;

/// Pause after a connection that could not be accepted: most often file descriptors have run out,
/// and only time brings them back.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where probes and metrics are served; flattened into a program's command line.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Probes {
    /// Port of `/livez`, `/readyz` and `/metrics`, plain HTTP
    #[arg(long, env = "PROBE_PORT", default_value_t = 8080, value_name = "PORT")]
    pub probe_port: u16,
}

/// Whether the program can do its work. All parts are named at the start, so it is never ready by
/// an omission. Clones speak of the same program.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<[(&'static str, AtomicBool)]>);

/// One thing that must be in place before the program is ready.
#[derive(Clone, Debug)]
pub struct Part {
    of: Readiness,
    index: usize,
}

impl Readiness {
    /// Not ready until each of the parts is.
    pub fn of<const N: usize>(names: [&'static str; N]) -> (Self, [Part; N]) {
        let readiness = Self(names.into_iter().map(|name| (name, AtomicBool::new(false))).collect());
        let parts = std::array::from_fn(|index| Part { of: readiness.clone(), index });
        (readiness, parts)
    }

    /// The parts that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(|(_, ready)| !ready.load(Ordering::Acquire)).map(|(name, _)| *name)
    }
}

impl Part {
    /// Says whether this part is in place; logged where it changes.
    pub fn set(&self, ready: bool) {
        let Some((part, state)) = self.of.0.get(self.index) else { return };
        if state.swap(ready, Ordering::AcqRel) != ready {
            tracing::info!(part, ready, "readiness changed");
        }
    }
}

/// Serves probes and metrics for as long as it is polled.
pub async fn serve(listener: TcpListener, readiness: Readiness, metrics: Arc<Registry>) -> Infallible {
    let places = Places::new(CONNECTIONS, PER_SOURCE);
    loop {
        let (stream, place) = match listener.accept().await {
            Ok((stream, source)) => match places.take(source.ip()).await {
                Some(place) => (stream, place),
                None => continue,
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the probes");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (readiness, metrics) = (readiness.clone(), Arc::clone(&metrics));
        let activity = Arc::clone(place.activity());
        let service = service_fn(move |request: Request<_>| {
            let _request = Activity::enter(&activity);
            let response = answer(request.method(), request.uri().path(), &readiness, &metrics);
            std::future::ready(Ok::<_, Infallible>(response))
        });
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = place.is_needed() => {}
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "a connection to the probes ended early");
                }
            }
        });
    }
}

fn answer(method: &Method, path: &str, readiness: &Readiness, metrics: &Registry) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(readiness),
        "/metrics" => exposition(metrics),
        _ => text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics are here\n"),
    }
}

fn ready(readiness: &Readiness) -> Response<Full<Bytes>> {
    let missing: Vec<_> = readiness.missing().collect();
    if missing.is_empty() {
        return text(StatusCode::OK, "ok\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
}

fn exposition(metrics: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match encode(&mut body, metrics) {
        Ok(()) => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the metrics: {error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(path: &str, readiness: &Readiness, metrics: &Registry) -> (StatusCode, String) {
        let response = answer(&Method::GET, path, readiness, metrics);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_until_nothing_is() {
        let (readiness, [certificate, migrators]) = Readiness::of(["certificate", "migrators synced"]);
        let metrics = Registry::default();

        let (status, body) = get("/readyz", &readiness, &metrics).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "not ready: certificate, migrators synced\n");

        certificate.set(true);
        assert_eq!(get("/readyz", &readiness, &metrics).await.1, "not ready: migrators synced\n");

        migrators.set(true);
        assert_eq!(get("/readyz", &readiness, &metrics).await.0, StatusCode::OK);

        certificate.set(false);
        assert_eq!(get("/readyz", &readiness, &metrics).await.1, "not ready: certificate\n");
    }

    #[tokio::test]
    async fn a_program_that_is_not_ready_is_alive() {
        let (readiness, [_]) = Readiness::of(["certificate"]);
        assert_eq!(get("/livez", &readiness, &Registry::default()).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_text_that_prometheus_reads() {
        let (readiness, []) = Readiness::of([]);
        let mut metrics = Registry::default();
        let runs = Counter::<u64>::default();
        metrics.register("runs", "Runs that ended", runs.clone());
        runs.inc();
        let (_, body) = get("/metrics", &readiness, &metrics).await;
        assert!(body.contains("\nruns_total 1\n"), "{body}");
    }

    #[tokio::test]
    async fn the_server_answers_over_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, [_]) = Readiness::of(["certificate"]);
        let server = tokio::spawn(serve(listener, readiness, Arc::default()));

        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /readyz HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        server.abort();
    }

    async fn exchange(client: &mut tokio::net::TcpStream, request: &[u8]) -> String {
        // Closed in whichever way, also while it is written.
        let _ = client.write_all(request).await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn one_source_keeps_no_other_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, []) = Readiness::of([]);
        let server = tokio::spawn(serve(listener, readiness, Arc::default()));
        let from_elsewhere = || async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            socket.connect(address).await.unwrap()
        };
        let mut held = Vec::new();
        for _ in 0..PER_SOURCE {
            held.push(from_elsewhere().await);
        }
        let (mut further, mut byte) = (from_elsewhere().await, [0]);
        let closed = tokio::time::timeout(HEADER_TIMEOUT / 2, further.read(&mut byte)).await;
        assert_eq!(closed.expect("it is closed at once").unwrap(), 0);
        let mut kubelet = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = b"GET /livez HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n";
        assert!(exchange(&mut kubelet, request).await.starts_with("HTTP/1.1 200"));
        server.abort();
    }

    #[tokio::test]
    async fn large_headers_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, []) = Readiness::of([]);
        let server = tokio::spawn(serve(listener, readiness, Arc::default()));
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /livez HTTP/1.1\r\nhost: pod\r\nlarge: {}", "x".repeat(HEADERS));
        let answer = exchange(&mut client, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        server.abort();
    }
}
