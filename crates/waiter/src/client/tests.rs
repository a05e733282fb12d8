//! Servers that say nothing, stop halfway or can't be reached, under limits that a test can wait for.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use migrations_protocol::Verdict;

use super::*;
use server::{Authority, Reply, Server};

#[path = "../../tests/server/mod.rs"]
mod server;

const SERVER_NAME: &str = "migrations-webhook.migrations-operator.svc";

/// Far more than anything here takes that doesn't hang.
const LONG: Duration = Duration::from_mins(1);

const SOON: Duration = Duration::from_millis(300);

const PATIENT: Limits = Limits { resolve: LONG, reach: LONG, connect: LONG, answer: LONG };

fn reply(version: &str) -> Reply {
    Reply::Answer(Answer {
        verdict: Verdict::Wait,
        reason: "Test".to_owned(),
        message: String::new(),
        version: version.to_owned(),
    })
}

/// A waiter's directory, and a client that asks these servers.
fn client(authority: &Authority, servers: &[String], limits: Limits) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(CA_FILE), authority.bundle()).unwrap();
    fs::write(directory.path().join(TOKEN_FILE), "token").unwrap();
    let arguments = Arguments {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: Vec::new(),
        revision: None,
        follower: false,
        labels: BTreeMap::new(),
        servers: servers.to_vec(),
        server_name: SERVER_NAME.to_owned(),
        files: directory.path().to_owned(),
        timeout: None,
    };
    let client = Client::with_limits(arguments, limits);
    (directory, client)
}

/// Asks, and fails where a limit wasn't kept.
fn ask_soon(client: &mut Client, seen: Option<&str>) -> Result<Answer, Vec<Fault>> {
    let asked = Instant::now();
    let heard = client.ask(seen.map(str::to_owned));
    assert!(asked.elapsed() < LONG / 2, "{heard:?}");
    heard
}

/// Connections are taken, by its kernel, and nobody is there to speak.
fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn connections(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

#[test]
fn a_server_that_says_nothing_is_left_for_the_next_and_not_asked_first_again() {
    let authority = Authority::new();
    let good = Server::start(&authority, SERVER_NAME, |_| reply("1"));
    let (listener, address) = mute();
    let limits = Limits { connect: SOON, ..PATIENT };
    let (directory, mut client) = client(&authority, &[address, good.address()], limits);
    assert_eq!(ask_soon(&mut client, None).unwrap().version, "1");
    assert_eq!(connections(&listener), 1);
    // Anew, as after a rotation of certificates.
    fs::write(directory.path().join(CA_FILE), authority.bundle() + "\n").unwrap();
    assert_eq!(ask_soon(&mut client, None).unwrap().version, "1");
    assert_eq!((connections(&listener), good.connections()), (0, 2));
}

#[test]
fn a_server_that_never_speaks_is_a_silent_fault() {
    let authority = Authority::new();
    let (_listener, address) = mute();
    let limits = Limits { connect: SOON, ..PATIENT };
    let (_directory, mut client) = client(&authority, &[address], limits);
    let faults = ask_soon(&mut client, None).unwrap_err();
    assert!(faults[0].silent, "{faults:?}");
}

#[test]
fn an_address_that_takes_no_connection_costs_no_more_than_reaching_for_it() {
    let authority = Authority::new();
    // Whoever connects beyond its backlog is neither taken nor refused.
    let (_listener, address) = mute();
    let target: std::net::SocketAddr = address.parse().unwrap();
    let crowd: Vec<_> =
        (0..300).map_while(|_| std::net::TcpStream::connect_timeout(&target, SOON).ok()).collect();
    assert!(crowd.len() < 300, "the backlog has no end here");
    let limits = Limits { reach: SOON, ..PATIENT };
    let (_directory, mut client) = client(&authority, &[address], limits);
    let faults = ask_soon(&mut client, None).unwrap_err();
    assert!(faults[0].silent, "{faults:?}");
}

#[test]
fn a_server_that_dies_while_it_holds_the_question_is_noticed_and_asked_anew() {
    let authority = Authority::new();
    let left = Mutex::new(vec!["2", "dies", "1"]);
    let server = Server::start(&authority, SERVER_NAME, move |_| {
        let next = left.lock().unwrap().pop().unwrap();
        if next == "dies" {
            thread::sleep(LONG);
        }
        reply(next)
    });
    let limits = Limits { answer: SOON, ..PATIENT };
    let (_directory, mut client) = client(&authority, &[server.address()], limits);
    assert_eq!(ask_soon(&mut client, None).unwrap().version, "1");
    assert_eq!(ask_soon(&mut client, Some("1")).unwrap().version, "2");
    assert_eq!((server.questions(), server.connections()), (3, 2));
}

#[test]
fn an_answer_that_trickles_in_is_given_up() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |_| Reply::Trickle);
    let limits = Limits { answer: SOON, ..PATIENT };
    let (_directory, mut client) = client(&authority, &[server.address()], limits);
    let faults = ask_soon(&mut client, None).unwrap_err();
    assert!(faults[0].what.contains("no answer in"), "{faults:?}");
}

#[test]
fn a_server_that_answers_badly_is_asked_once_a_round() {
    let authority = Authority::new();
    let server = Server::start(&authority, SERVER_NAME, |question| match question.seen {
        None => reply("1"),
        Some(_) => Reply::Http("503 Service Unavailable"),
    });
    let (_directory, mut client) = client(&authority, &[server.address()], PATIENT);
    ask_soon(&mut client, None).unwrap();
    let faults = ask_soon(&mut client, Some("1")).unwrap_err();
    assert_eq!((faults.len(), faults[0].answered, server.questions()), (1, true, 2));
}

#[test]
fn a_name_that_is_not_found_is_left_for_the_next_server() {
    let authority = Authority::new();
    let good = Server::start(&authority, SERVER_NAME, |_| reply("1"));
    let limits = Limits { resolve: SOON, ..PATIENT };
    let (_directory, mut client) =
        client(&authority, &["nobody.invalid:1".to_owned(), good.address()], limits);
    assert_eq!(ask_soon(&mut client, None).unwrap().version, "1");
}

#[test]
fn the_server_that_answered_last_comes_first() {
    assert_eq!(in_order(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(in_order(3, 2).collect::<Vec<_>>(), [2, 0, 1]);
}
