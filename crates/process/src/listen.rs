//! Listening on a port of the Pod, whichever address families the node has.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on port {port}")]
pub struct ListenError {
    port: u16,
    source: io::Error,
}

/// Listens on `port` of every address: IPv6 with IPv4 mapped into it, or IPv4 alone on a node
/// without IPv6.
pub async fn listen(port: u16) -> Result<TcpListener, ListenError> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
    .map_err(|source| ListenError { port, source })
}
