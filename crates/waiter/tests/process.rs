//! The waiter as a process, against a small TLS server: what ends it, and what must not.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use migrations_protocol::{
    ANNOTATIONS_FILE, Answer, Arguments, CA_FILE, Container, EXIT_TERMINATED, EXIT_TIMEOUT, EXIT_USAGE,
    NO_WAIT_ANNOTATION, RELEASED_ANNOTATION, TOKEN_FILE, UID_FILE, Verdict,
};
use rstest::rstest;
use server::{Authority, Reply, Server};

const SERVER_NAME: &str = "migrations-webhook.migrations-operator.svc";
const PATIENCE: Duration = Duration::from_secs(30);

/// The Pod's.
const UID: &str = "0b6a6b4e-6d4c-4f3e-9a4b-1d2c3e4f5a6b";

/// A waiter that runs, with what it has written so far.
struct Waiter {
    child: Child,
    said: Arc<Mutex<String>>,
    directory: tempfile::TempDir,
}

impl Waiter {
    fn asking(servers: &[String], bundle: &str) -> Self {
        Self::annotated(servers, bundle, "", None)
    }

    /// In a Pod with these annotations, as the kubelet writes them, that waits for so long at most.
    fn annotated(servers: &[String], bundle: &str, annotations: &str, timeout: Option<u64>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let token = (TOKEN_FILE, "token-1\n");
        for (file, content) in [(CA_FILE, bundle), token, (ANNOTATIONS_FILE, annotations), (UID_FILE, UID)] {
            fs::write(directory.path().join(file), content).unwrap();
        }
        let arguments = Arguments {
            namespace: "default".to_owned(),
            migrator: "shop".to_owned(),
            containers: vec![Container { name: "app".to_owned(), image: "shop:2".to_owned() }],
            revision: None,
            follower: false,
            labels: BTreeMap::new(),
            servers: servers.to_vec(),
            server_name: SERVER_NAME.to_owned(),
            files: directory.path().to_owned(),
            timeout,
        };
        Self::run(&arguments.to_args(), directory)
    }

    fn run(args: &[String], directory: tempfile::TempDir) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_migrations-waiter"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut output, shared) = (child.stdout.take().unwrap(), Arc::clone(&said));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Self { child, said, directory }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join(CA_FILE)
    }

    fn token(&self) -> PathBuf {
        self.directory.path().join(TOKEN_FILE)
    }

    /// As a kubelet renews the file.
    fn annotate(&self, annotations: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, annotations).unwrap();
        fs::rename(new, self.directory.path().join(ANNOTATIONS_FILE)).unwrap();
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn until_it_says(&self, text: &str) {
        let started = Instant::now();
        while !self.said().contains(text) {
            assert!(started.elapsed() < PATIENCE, "never said {text:?}:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_it_ends(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "never ended:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn must_still_wait(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.said());
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(verdict: Verdict, message: &str) -> Reply {
    Reply::Answer(Answer {
        verdict,
        reason: "Test".to_owned(),
        message: message.to_owned(),
        version: message.to_owned(),
    })
}

#[test]
fn released_ends_it_with_0() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    assert!(waiter.said().contains("released: all done"), "{}", waiter.said());
}

#[test]
fn it_is_released_by_a_push_without_asking_twice() {
    let authority = Authority::new();
    let (push, pushed) = mpsc::channel();
    let pushed = Mutex::new(pushed);
    let server = Server::start(&authority, SERVER_NAME, move |question| match question.seen {
        None => answer(Verdict::Wait, "failed\nits last output:\nno such table"),
        Some(seen) => {
            assert_eq!(seen, "failed\nits last output:\nno such table");
            pushed.lock().unwrap().recv().unwrap();
            answer(Verdict::Released, "done")
        }
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("] failed\n    its last output:\n    no such table\n");
    thread::sleep(Duration::from_millis(300));
    waiter.must_still_wait();
    push.send(()).unwrap();
    let released = Instant::now();
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    assert!(released.elapsed() < Duration::from_secs(1), "released by period: {:?}", released.elapsed());
    assert_eq!(server.questions(), 2);
    assert_eq!(server.connections(), 1, "a handshake for each question");
}

/// A server whose host is gone says nothing, as one that holds a question.
#[test]
fn a_server_that_holds_the_question_is_asked_by_the_kernel_whether_it_is_there() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |question| {
        if question.seen.is_some() {
            thread::sleep(PATIENCE);
        }
        answer(Verdict::Wait, "waits for shop:2")
    });
    let waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("waits for shop:2");
    let address: SocketAddr = server.address().parse().unwrap();
    let started = Instant::now();
    while !is_asked_by_the_kernel(address.port()) {
        assert!(started.elapsed() < PATIENCE, "the kernel asks nothing");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether this machine has a connection to that port with a keepalive timer that ends within 2 s.
fn is_asked_by_the_kernel(port: u16) -> bool {
    let connections = fs::read_to_string("/proc/net/tcp").unwrap();
    connections.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let Some((timer, left)) = fields.get(5).and_then(|it| it.split_once(':')) else { return false };
        // In hundredths of a second.
        let soon = u64::from_str_radix(left, 16).is_ok_and(|left| left <= 200);
        fields[2].ends_with(&format!(":{port:04X}")) && fields[3] == "01" && timer == "02" && soon
    })
}

/// Where nobody listens.
fn unused() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_released_pod_starts_again_without_asking_anyone() {
    let annotations = format!("a=\"1\"\n{RELEASED_ANNOTATION}=\"{UID}\"\n");
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Wait, "not now"));
    let mut waiter = Waiter::annotated(&[server.address()], &authority.bundle(), &annotations, None);
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    waiter.until_it_says("released: this Pod was released before");
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_mark_of_another_pod_releases_nothing() {
    let authority = Authority::new();
    let annotations = format!("{RELEASED_ANNOTATION}=\"11111111-6d4c-4f3e-9a4b-1d2c3e4f5a6b\"\n");
    let mut waiter = Waiter::annotated(&[unused()], &authority.bundle(), &annotations, None);
    waiter.until_it_says("connection refused");
    waiter.must_still_wait();
}

#[test]
fn no_wait_set_by_hand_ends_the_wait() {
    let authority = Authority::new();
    let mut waiter = Waiter::asking(&[unused()], &authority.bundle());
    waiter.until_it_says("connection refused");
    waiter.annotate(&format!("{NO_WAIT_ANNOTATION}=\"true\"\n"));
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    waiter.until_it_says("released: the Pod is annotated migrations.coderanger.net/no-wait: \"true\"");
}

#[test]
fn a_timeout_ends_it_with_75_and_what_it_waited_for() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |question| {
        if question.seen.is_some() {
            thread::sleep(PATIENCE);
        }
        answer(Verdict::Wait, "waits for shop:2")
    });
    let mut waiter = Waiter::annotated(&[server.address()], &authority.bundle(), "", Some(1));
    assert_eq!(waiter.until_it_ends().code(), Some(i32::from(EXIT_TIMEOUT)));
    waiter.until_it_says("gives up, as the webhook's --waiter-timeout says: waits for shop:2");
}

#[test]
fn connections_that_break_are_tried_again() {
    let authority = Authority::new();
    let breaking = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = breaking.local_addr().unwrap().to_string();
    let mut waiter = Waiter::asking(std::slice::from_ref(&address), &authority.bundle());
    // One is closed in good order, one with what was sent to it unread: that is a reset.
    drop(breaking.accept().unwrap());
    let (reset, _) = breaking.accept().unwrap();
    reset.peek(&mut [0]).unwrap();
    drop((reset, breaking));
    waiter.until_it_says("can't ask, tries again");
    waiter.must_still_wait();
    let _server =
        Server::start_at(&address, &authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[test]
fn a_connection_that_ends_between_two_questions_is_made_anew_at_once() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |question| match question.seen.as_deref() {
        None => answer(Verdict::Wait, "first"),
        Some("first") => Reply::Raw(
            "HTTP/1.1 200 OK\r\ncontent-length: 63\r\n\r\n\
             {\"verdict\":\"Wait\",\"reason\":\"R\",\"message\":\"\",\"version\":\"second\"}",
        ),
        Some(_) => answer(Verdict::Released, "all done"),
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    assert_eq!((server.questions(), server.connections()), (3, 2));
    assert!(!waiter.said().contains("can't ask"), "{}", waiter.said());
}

#[test]
fn refused_connections_are_tried_again() {
    let authority = Authority::new();
    let unused = unused();
    let mut waiter = Waiter::asking(std::slice::from_ref(&unused), &authority.bundle());
    waiter.until_it_says("connection refused");
    thread::sleep(Duration::from_millis(700));
    waiter.must_still_wait();
    let _server =
        Server::start_at(&unused, &authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[test]
fn the_next_server_is_asked_where_the_first_is_gone() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[unused(), server.address()], &authority.bundle());
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[rstest]
#[case::no_answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "its answer isn't understood")]
#[case::fault(
    "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 6\r\n\r\nbroken",
    "HTTP 500 Internal Server Error broken"
)]
#[case::busy("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "HTTP 503 Service Unavailable")]
#[case::token_not_known_for_now(
    "HTTP/1.1 401 Unauthorized\r\ncontent-length: 13\r\n\r\nunknown token",
    "HTTP 401 Unauthorized unknown token"
)]
#[case::forbidden("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "HTTP 403 Forbidden")]
#[case::other_place(
    "HTTP/1.1 301 Moved\r\nlocation: https://elsewhere.example/\r\ncontent-length: 0\r\n\r\n",
    "HTTP 301"
)]
#[case::other_protocol("SSH-2.0-OpenSSH\r\n\r\n", "can't ask")]
#[case::half_an_answer("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"verdict\":\"Released\"", "can't ask")]
#[case::more_than_an_answer_may_be("HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n", "can't ask")]
#[case::nothing("", "can't ask")]
fn whatever_a_server_says_instead_of_an_answer_it_is_told_and_asked_again(
    #[case] instead: &'static str,
    #[case] told: &str,
) {
    let authority = Authority::new();
    let said = AtomicBool::new(false);
    let server = Server::start(&authority, SERVER_NAME, move |_| {
        if said.swap(true, Ordering::SeqCst) {
            answer(Verdict::Released, "all done")
        } else {
            Reply::Raw(instead)
        }
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    assert_eq!(waiter.until_it_ends().code(), Some(0), "{}", waiter.said());
    waiter.until_it_says(told);
    assert_eq!(server.questions(), 2);
}

#[test]
fn a_verdict_it_does_not_know_is_no_release() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |question| {
        if question.seen.is_some() {
            thread::sleep(PATIENCE);
        }
        Reply::Json(r#"{"verdict":"Superseded","reason":"R","message":"a newer image","version":"1"}"#)
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("] a newer image");
    waiter.must_still_wait();
}

#[test]
fn another_authority_is_not_trusted_until_the_bundle_on_disk_holds_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[server.address()], &other.bundle());
    waiter.until_it_says("its certificate is not trusted");
    thread::sleep(Duration::from_millis(700));
    waiter.must_still_wait();
    assert_eq!(server.questions(), 0);
    fs::write(waiter.ca(), other.bundle() + &authority.bundle()).unwrap();
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[test]
fn another_name_in_the_certificate_is_not_trusted() {
    let authority = Authority::new();
    let server = Server::start(&authority, "other.example", |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("its certificate is not trusted");
    waiter.must_still_wait();
}

#[test]
fn a_bundle_that_is_not_there_yet_is_waited_for() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[server.address()], "");
    waiter.until_it_says("ca.crt: holds no certificate");
    fs::remove_file(waiter.ca()).unwrap();
    waiter.until_it_says("ca.crt: No such file");
    fs::write(waiter.ca(), authority.bundle()).unwrap();
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[test]
fn the_pods_token_is_sent_and_read_again_at_each_attempt() {
    let authority = Authority::new();
    let (ask, asked) = mpsc::channel();
    let asked = Mutex::new(asked);
    let server = Server::start(&authority, SERVER_NAME, move |question| match question.seen.as_deref() {
        None => answer(Verdict::Wait, "first"),
        Some("first") => {
            asked.lock().unwrap().recv().unwrap();
            answer(Verdict::Wait, "second")
        }
        Some(_) => answer(Verdict::Released, "done"),
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("] first");
    fs::write(waiter.token(), "token-2\n").unwrap();
    ask.send(()).unwrap();
    assert_eq!(waiter.until_it_ends().code(), Some(0));
    assert_eq!(server.authorizations().first().unwrap(), "Bearer token-1");
    assert_eq!(server.authorizations().last().unwrap(), "Bearer token-2");
    assert!(!waiter.said().contains("token-"), "{}", waiter.said());
}

#[test]
fn a_token_that_is_not_there_yet_is_waited_for() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| answer(Verdict::Released, "all done"));
    let mut waiter = Waiter::asking(&[server.address()], "");
    fs::write(waiter.token(), "\n").unwrap();
    fs::write(waiter.ca(), authority.bundle()).unwrap();
    waiter.until_it_says("token: holds no token");
    fs::remove_file(waiter.token()).unwrap();
    waiter.until_it_says("token: No such file");
    assert_eq!(server.questions(), 0);
    fs::write(waiter.token(), "token-1").unwrap();
    assert_eq!(waiter.until_it_ends().code(), Some(0));
}

#[test]
fn a_token_that_is_refused_is_sent_again() {
    let authority = Authority::new();
    let replies = Mutex::new(vec![
        answer(Verdict::Released, "all done"),
        Reply::Raw("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nlater"),
        Reply::Raw("HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nno Pod"),
        Reply::Raw(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 7\r\n\r\nexpired",
        ),
    ]);
    let server = Server::start(&authority, SERVER_NAME, move |_| replies.lock().unwrap().pop().unwrap());
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    assert_eq!(waiter.until_it_ends().code(), Some(0), "{}", waiter.said());
    assert!(waiter.said().contains("HTTP 401 Unauthorized expired"), "{}", waiter.said());
}

#[test]
fn wrong_arguments_end_it_with_64_and_what_is_wrong() {
    let mut waiter = Waiter::run(&["--server=10.0.0.1:9444".to_owned()], tempfile::tempdir().unwrap());
    assert_eq!(waiter.until_it_ends().code(), Some(i32::from(EXIT_USAGE)));
    waiter.until_it_says("--namespace is missing");
}

#[test]
fn help_is_no_release() {
    let mut waiter = Waiter::run(&["--help".to_owned()], tempfile::tempdir().unwrap());
    assert_eq!(waiter.until_it_ends().code(), Some(i32::from(EXIT_USAGE)));
    waiter.until_it_says("Usage: migrations-waiter");
}

#[test]
fn sigterm_ends_it_at_once_by_its_own_handler() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| {
        thread::sleep(PATIENCE);
        answer(Verdict::Wait, "late")
    });
    let mut waiter = Waiter::asking(&[server.address()], &authority.bundle());
    waiter.until_it_says("asks");
    let kill = Command::new("kill").args(["-TERM", &waiter.child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    // An exit code, not death by signal: as the first process of a container, only a handler works.
    assert_eq!(waiter.until_it_ends().code(), Some(i32::from(EXIT_TERMINATED)));
}
