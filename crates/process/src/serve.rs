//! HTTP over TLS with limits: each listener has its own budget of connections, no client can hold
//! one for nothing, a panic ends one request, and the end is orderly.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;

/// Pause after a connection that could not be accepted: most often file descriptors have run out,
/// and only time brings them back.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a listener may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's headers, and between two requests on HTTP/1.1.
    pub headers: Duration,
    /// A connection without a request is closed after this.
    pub idle: Duration,
    /// How long open requests may go on once the server has been asked to end.
    pub drain: Duration,
}

/// Serves `handler` until `end` is requested and its requests are answered, or the time to drain is
/// over.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    limits: Limits,
    end: Shutdown,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let budget = Arc::new(Semaphore::new(limits.connections));
    let acceptor = TlsAcceptor::from(tls);
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&budget).acquire_owned().await.ok();
            (listener.accept().await, permit)
        };
        let stream = tokio::select! {
            () = end.requested() => break,
            (stream, permit) = accepted => stream.map(|(stream, _)| (stream, permit)),
        };
        let (stream, permit) = match stream {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, end, handler) = (acceptor.clone(), end.clone(), handler.clone());
        open.spawn(async move {
            connection(stream, acceptor, limits, end, handler).await;
            drop(permit);
        });
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(connections = open.len(), "some connections had to be cut off");
    }
}

async fn connection<H, F>(stream: TcpStream, acceptor: TlsAcceptor, limits: Limits, end: Shutdown, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request: Request<Incoming>| {
        let (handler, request_in_flight) = (handler.clone(), activity.enter());
        async move {
            let response = AssertUnwindSafe(async move { handler(request).await }).catch_unwind().await;
            drop(request_in_flight);
            Ok::<_, Infallible>(response.unwrap_or_else(|_| {
                text(StatusCode::INTERNAL_SERVER_ERROR, "this request met a defect; it is in the log\n")
            }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    builder.http2().timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut ending = false;
    loop {
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = end.requested(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = tokio::time::sleep(limits.idle.saturating_sub(activity.idle())) => {
                if activity.idle() < limits.idle {
                    continue;
                }
                return;
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early");
        }
        return;
    }
}

/// Whether a connection has requests, and since when it has none.
struct Activity {
    started: Instant,
    requests: AtomicUsize,
    /// Milliseconds from the start to the end of the last request.
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self { started: Instant::now(), requests: AtomicUsize::new(0), last: AtomicU64::new(0) }
    }
}

impl Activity {
    fn enter(self: &Arc<Self>) -> InFlight {
        self.requests.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    fn idle(&self) -> Duration {
        if self.requests.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Acquire)))
    }
}

struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More than the limit.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It came too slowly.
    #[error("the body did not arrive within {0:?}")]
    TooSlow(Duration),
    /// The connection broke.
    #[error("the body did not arrive whole")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    /// The HTTP status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request's body whole, of at most `limit` bytes, in the time it may take.
pub async fn read_body<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, BodyError>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Refused before a byte is read, where its length is told.
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    match tokio::time::timeout(time, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Ok(Err(error)) => Err(BodyError::Broken(error)),
        Err(_) => Err(BodyError::TooSlow(time)),
    }
}

/// A plain text response.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

/// A JSON response of a body that is JSON.
pub fn json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(StatusCode::OK, "application/json", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
