//! A TLS server of a few lines, so that the waiter is tested against bytes and not against the
//! webhook's own ideas of HTTP.

#![allow(dead_code, reason = "each of those that include it uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use migrations_protocol::{Answer, Question};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn bundle(&self) -> String {
        self.0.pem()
    }

    fn server_config(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap()
    }
}

/// What a question gets.
pub(crate) enum Reply {
    Answer(Answer),
    Json(&'static str),
    Raw(&'static str),
    /// A status without a body, on a connection that stays.
    Http(&'static str),
    /// The start of an answer, and then a byte now and then.
    Trickle,
}

/// A server that runs until the test ends.
pub(crate) struct Server {
    address: String,
    questions: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    authorizations: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(
        authority: &Authority,
        name: &str,
        reply: impl Fn(Question) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_at("127.0.0.1:0", authority, name, reply)
    }

    pub(crate) fn start_at(
        address: &str,
        authority: &Authority,
        name: &str,
        reply: impl Fn(Question) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = Arc::new(authority.server_config(name));
        let (questions, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (reply, count, accepted) = (Arc::new(reply), Arc::clone(&questions), Arc::clone(&connections));
        let authorizations = Arc::<Mutex<Vec<String>>>::default();
        let sent = Arc::clone(&authorizations);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (config, reply, count) = (Arc::clone(&config), Arc::clone(&reply), Arc::clone(&count));
                let sent = Arc::clone(&sent);
                thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    stream.set_nodelay(true).unwrap();
                    // An error is the client's leaving.
                    let _ = serve(StreamOwned::new(connection, stream), &*reply, &count, &sent);
                });
            }
        });
        Self { address, questions, connections, authorizations }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What came with each question as `authorization`.
    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.authorizations.lock().unwrap().clone()
    }

    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    reply: &dyn Fn(Question) -> Reply,
    questions: &AtomicUsize,
    authorizations: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                authorizations.lock().unwrap().push(value.trim().to_owned());
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        questions.fetch_add(1, Ordering::SeqCst);
        let stream = stream.get_mut();
        match reply(serde_json::from_slice(&body).unwrap()) {
            Reply::Answer(answer) => write(stream, &serde_json::to_string(&answer).unwrap())?,
            Reply::Json(body) => write(stream, body)?,
            Reply::Http(status) => write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?,
            Reply::Trickle => {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n")?;
                loop {
                    stream.write_all(b" ")?;
                    stream.flush()?;
                    thread::sleep(Duration::from_millis(20));
                }
            }
            Reply::Raw(text) => {
                stream.write_all(text.as_bytes())?;
                stream.conn.send_close_notify();
                stream.flush()?;
                return Ok(());
            }
        }
        stream.flush()?;
    }
}

/// In one piece, so that it leaves in one packet.
fn write(stream: &mut impl Write, body: &str) -> std::io::Result<()> {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes())
}
