//! Connections to the measured server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::Server;

/// Connections that share a source address, as those of one node might.
const SHARING: usize = 50;

/// A connection over TLS. Each of many comes from one of many loopback addresses, as waiters do.
pub(crate) async fn tls(server: &Server, port: u16, index: usize, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.authority.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let socket = TcpSocket::new_v4().unwrap();
    let [_, _, high, low] = u32::try_from(index / SHARING + 1).unwrap().to_be_bytes();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, high, low), 0))).unwrap();
    let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Whether the server has left a connection open on which it has nothing to say.
pub(crate) async fn is_open(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.read_u8().now_or_never().is_none()
}
