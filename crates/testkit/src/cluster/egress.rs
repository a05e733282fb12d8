//! The way from the API server to what a test serves. An `EndpointSlice` refuses loopback, and a sandbox has no other
//! address; so the API server has a proxy open its connections to Services, which leads them to loopback.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use serde_json::json;

/// What stands for this machine behind a Service: of TEST-NET-2 (RFC 5737), so nobody's.
pub(super) const THIS_MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// Serves the proxy in `directory`, for as long as the test process runs; gives the argument that has an API server use
/// it. On threads, as the runtime of the test that starts a control plane may end before those of others that share it.
pub(super) fn in_directory(directory: &Path) -> String {
    let socket = directory.join("egress.sock");
    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("the API server connects");
            // One that breaks is the API server's to tell.
            thread::spawn(move || serve(&connection));
        }
    });
    let configuration = directory.join("egress.json");
    let selections = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration",
        "egressSelections": [{
            "name": "cluster",
            "connection": { "proxyProtocol": "HTTPConnect", "transport": { "uds": { "udsName": socket } } },
        }],
    });
    fs::write(&configuration, selections.to_string()).expect("a file can be written");
    format!("--egress-selector-config-file={}", configuration.display())
}

/// Answers one CONNECT request and then carries what it opened.
fn serve(api_server: &UnixStream) -> io::Result<()> {
    // Nothing follows the request before it is answered, so nothing is left in the buffer.
    let head: Vec<_> = BufReader::new(api_server)
        .lines()
        .take_while(|line| !line.as_ref().is_ok_and(String::is_empty))
        .collect::<Result<_, _>>()?;
    let opened = head.first().and_then(|request| port(request)).map(open);
    let mut answer = api_server;
    match opened {
        Some(Ok(served)) => {
            answer.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            carry(api_server, &served);
            Ok(())
        }
        Some(Err(_)) => answer.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
        None => answer.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// The port of this machine that a request asks for, if it asks for this machine.
fn port(request: &str) -> Option<u16> {
    let authority = request.strip_prefix("CONNECT ")?.split(' ').next()?;
    let asked: SocketAddrV4 = authority.parse().ok()?;
    (*asked.ip() == THIS_MACHINE).then_some(asked.port())
}

fn open(port: u16) -> io::Result<TcpStream> {
    let served = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    served.set_nodelay(true)?;
    Ok(served)
}

/// Carries bytes both ways until either side ends.
fn carry(api_server: &UnixStream, served: &TcpStream) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*api_server, &mut &*served);
            let _ = served.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut &*served, &mut &*api_server);
        let _ = api_server.shutdown(Shutdown::Both);
    });
}
