//! The way to the API server. Each watch is a request that never ends: over HTTP/1.1, which kube's
//! own client speaks, each would hold a connection with its buffers, over HTTP/2 many share one.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tokio::net::TcpStream;
use tower::retry::RetryLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder};

/// How many requests share a connection. An API server takes 100 at once, and lets one more wait
/// until another ends, which a watch never does.
const SHARE: usize = 80;

/// How long it may take to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(30);

/// How often a connection is asked whether it is alive, and how long the answer may take.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// A client of the API server that `config` tells of.
pub fn client(config: Config) -> kube::Result<Client> {
    // There, they are refused with the reason.
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let connections = Connections { connector: connector(&config)?, open: Arc::default() };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(connections);
    Ok(Client::new(service, config.default_namespace))
}

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// Offers HTTP/2, and speaks HTTP/1.1 where the other end doesn't have it.
fn connector(config: &Config) -> kube::Result<Connector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let mut tls =
        HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let resolver = move |_: &Uri| name.clone().try_into().map_err(BoxError::from);
        tls = tls.with_server_name_resolver(resolver);
    }
    let connector = tls.enable_all_versions().wrap_connector(tcp);
    Ok(BoxCloneSyncService::new(ServiceBuilder::new().timeout(CONNECT).service(connector)))
}

/// Connections, each used by no more requests than its share. Clones are the same.
#[derive(Clone)]
struct Connections {
    connector: Connector,
    open: Arc<Mutex<Vec<Connection>>>,
}

/// One connection over HTTP/2, as many as are needed over HTTP/1.1; made when it is used, and made
/// again when it breaks.
#[derive(Clone)]
struct Connection {
    client: HttpClient<Connector, Body>,
    /// Held by each request until its answer has been read.
    used: Arc<()>,
}

impl Connection {
    fn new(connector: Connector) -> Self {
        let client = HttpClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(ALIVE.0)
            .http2_keep_alive_timeout(ALIVE.1)
            .build(connector);
        Self { client, used: Arc::default() }
    }

    fn has_room(&self) -> bool {
        Arc::strong_count(&self.used) <= SHARE
    }
}

impl Connections {
    /// The first connection with room, so that those made for a rush fall idle after it.
    fn one(&self) -> Connection {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = open.iter().find(|connection| connection.has_room()) {
            return connection.clone();
        }
        let connection = Connection::new(self.connector.clone());
        open.push(connection.clone());
        connection
    }
}

impl Service<Request<Body>> for Connections {
    type Response = Response<UnsyncBoxBody<Bytes, hyper::Error>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Connection { client, used } = self.one();
        Box::pin(async move {
            let response = client.request(request).await?;
            Ok(response.map(|body| {
                let until_read = move |frame| {
                    let _ = &used;
                    frame
                };
                body.map_frame(until_read).boxed_unsync()
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections() -> Connections {
        let config = Config::new(Uri::from_static("https://127.0.0.1:1"));
        Connections { connector: connector(&config).unwrap(), open: Arc::default() }
    }

    #[tokio::test]
    async fn a_connection_takes_its_share_and_has_room_again_after_it() {
        let connections = connections();
        let mut used: Vec<_> = (0..SHARE).map(|_| connections.one()).collect();
        assert_eq!(connections.open.lock().unwrap().len(), 1);
        let rush = connections.one();
        assert_eq!(connections.open.lock().unwrap().len(), 2);
        drop(rush);
        drop(used.pop());
        assert!(Arc::ptr_eq(&connections.one().used, &used[0].used));
        assert_eq!(connections.open.lock().unwrap().len(), 2);
    }
}
