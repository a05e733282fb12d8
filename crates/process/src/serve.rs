//! HTTP over TLS with limits: each listener has its own budget of connections, no client can hold
//! one for nothing, its requests have a budget of memory, a panic ends one of them, and the end is
//! orderly.

mod body;
mod memory;
pub(crate) mod places;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Shutdown;
use memory::Memory;
use places::{Activity, Place, Places};

pub use body::{BodyError, read_body};

/// Pause after a connection that could not be accepted: most often file descriptors have run out,
/// and only time brings them back.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Largest headers of a request, in bytes. A waiter's hold a token of 1 to 2 KiB.
const HEADERS: u32 = 16 * 1024;

/// What a request counts for beside its body, in bytes: its headers, its task, its answer.
const REQUEST: usize = 16 * 1024;

/// What one HTTP/2 connection may send before it is read, in bytes. All of it is read as it comes, so this
/// is no limit of the bodies.
const WINDOW: u32 = 128 * 1024;

/// How long a client that is told to go may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a listener may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time. For one more the one without a request for longest is closed; where
    /// all have requests, it waits.
    pub connections: usize,
    /// Connections at a time from one source address. For one more the one of that source without a
    /// request for longest is closed; where all have requests, it is refused.
    pub per_source: usize,
    /// Requests at a time on one connection, with HTTP/2; none where only HTTP/1.1 is spoken.
    pub streams: Option<u32>,
    /// What a request counts for whose body has no length, in bytes: the most that is read of one.
    pub body: usize,
    /// What requests may take at a time, in bytes: their bodies, and 16 KiB for each. Beyond it a client is
    /// told to try again.
    pub memory: usize,
    /// The same for those from one source address.
    pub memory_per_source: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's headers, and between two requests on HTTP/1.1.
    pub headers: Duration,
    /// For a request as a whole, from its headers to its response.
    pub request: Duration,
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
    let places = Places::new(limits.connections, limits.per_source);
    let memory = Memory::new(limits.memory, limits.memory_per_source);
    let acceptor = TlsAcceptor::from(offered(tls, &limits));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = async {
            let (stream, source) = listener.accept().await?;
            Ok::<_, std::io::Error>((stream, places.take(source.ip()).await))
        };
        let (stream, place) = tokio::select! {
            () = end.requested() => break,
            accepted = accepted => match accepted {
                Ok((stream, Some(place))) => (stream, place),
                // Closed: its source has enough.
                Ok((_, None)) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, end, handler) = (acceptor.clone(), end.clone(), handler.clone());
        let memory = memory.clone();
        open.spawn(async move {
            tokio::select! {
                () = place.is_needed() => tracing::debug!("an idle connection made room for another"),
                () = connection(stream, acceptor, &limits, end, handler, &place, &memory) => {}
            }
        });
    }
    drop(listener);
    let drained = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(connections = open.len(), "some connections had to be cut off");
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    limits: &Limits,
    end: Shutdown,
    handler: H,
    place: &Place,
    memory: &Memory,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let (stream, speaks_http_2) = match tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await
    {
        // Looked at here and not later: what has been borrowed is kept beside what it is moved into.
        Ok(Ok(stream)) => {
            let speaks_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (stream, speaks_http_2)
        }
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let (activity, most) = (place.activity(), limits.request);
    let service = service_fn(|request: Request<Incoming>| {
        let (handler, request_in_flight) = (handler.clone(), Activity::enter(activity));
        let share = memory.take(place.source(), weight(request.body(), limits.body));
        async move {
            let Some(share) = share else { return Ok(too_much()) };
            // In a box: what answers is large, and what is around it is moved a dozen times.
            let answered = Box::pin(async move { handler(request).await });
            let answered = AssertUnwindSafe(answered).catch_unwind();
            let response = match tokio::time::timeout(most, answered).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "this request met a defect; it is in the log\n")
                }
                Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "this request took too long\n"),
            };
            drop((request_in_flight, share));
            Ok::<_, Infallible>(response)
        }
    });
    let builder = builder(*limits, speaks_http_2);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let (mut ending, mut idle) = (false, limits.idle);
    loop {
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = end.requested(), if !ending => {
                (ending, idle) = (true, limits.idle + FAREWELL);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = tokio::time::sleep(idle.saturating_sub(activity.idle())) => {
                if activity.idle() < idle {
                    continue;
                }
                if ending {
                    return;
                }
                // A request may be on its way: with HTTP/2 the client is told which one is the last.
                (ending, idle) = (true, limits.idle + FAREWELL);
                connection.as_mut().graceful_shutdown();
                continue;
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended early");
        }
        return;
    }
}

/// Without HTTP/2 where it isn't spoken.
fn offered(tls: Arc<ServerConfig>, limits: &Limits) -> Arc<ServerConfig> {
    if limits.streams.is_some() {
        return tls;
    }
    let mut tls = ServerConfig::clone(&tls);
    tls.alpn_protocols.retain(|protocol| protocol != b"h2");
    Arc::new(tls)
}

/// What a request with that body counts for.
fn weight(body: &Incoming, most: usize) -> usize {
    let length = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
    REQUEST + length.unwrap_or(most).min(most)
}

/// API servers try again by themselves after that time.
fn too_much() -> Response<Full<Bytes>> {
    tracing::debug!("a request is refused: others take all the memory that there is for requests");
    let said = "more is asked at a time than there is memory for; try again\n";
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, said);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn builder(limits: Limits, http_2: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    if http_2 {
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS)
            .max_concurrent_streams(limits.streams)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            // Half-open connections are found before they would be idle for long enough.
            .keep_alive_interval(limits.idle / 2)
            .keep_alive_timeout(limits.idle / 2);
        return builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(HEADERS as usize);
    builder.http1_only()
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
