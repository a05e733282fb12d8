//! `pull`: what was published can be had by anyone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::registry::Registry;
use crate::script::{run, script};

#[test]
fn what_was_pushed_can_be_pulled() {
    let registry = Registry::start();
    run(script("pull").args(registry.push("sha-1", "one"))).lines();
}

#[test]
fn an_index_that_is_not_there_is_told() {
    let registry = Registry::start();
    registry.push("sha-1", "one");
    let absent = format!("{}@sha256:{}", registry.image("waiter"), "0".repeat(64));
    let error = run(script("pull").arg(&absent)).error();
    assert!(error.contains(&absent) && error.contains("make the package public"), "{error}");
}

#[test]
fn a_layer_that_is_not_what_it_was_is_told_for_any_architecture() {
    let registry = Registry::start();
    let indexes = registry.push("sha-1", "one");
    let image = format!("{}:sha-1-arm64", registry.image("webhook"));
    let manifest: Value = serde_json::from_str(&Registry::crane(&["manifest", &image]).concat()).unwrap();
    registry.spoil(manifest["layers"][0]["digest"].as_str().unwrap());
    let error = run(script("pull").args(&indexes)).error();
    assert!(error.contains(&indexes[1]), "{error}");
}

/// A registry that lets nobody in, and tells the requests that came with credentials.
fn closed_registry() -> (String, mpsc::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, asked) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let head: Vec<_> = BufReader::new(&stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let credentials = head.iter().any(|line| line.to_lowercase().starts_with("authorization:"));
            let _ = told.send(credentials);
            let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"all\"\r\n\
                          Content-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn nobodys_credentials_are_used() {
    let (address, asked) = closed_registry();
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".docker");
    std::fs::create_dir(&folder).unwrap();
    // user:password
    let config = format!(r#"{{"auths":{{"{address}":{{"auth":"dXNlcjpwYXNzd29yZA=="}}}}}}"#);
    std::fs::write(folder.join("config.json"), config).unwrap();
    let index = format!("{address}/owner/migrations-waiter@sha256:{}", "0".repeat(64));

    // A client finds them.
    let mut client = Command::new("crane");
    run(client.args(["manifest", &index]).env("HOME", home.path()).env("DOCKER_CONFIG", &folder));
    assert!(asked.try_iter().any(|credentials| credentials));

    run(script("pull").arg(&index).env("HOME", home.path()).env("DOCKER_CONFIG", &folder)).error();
    let requests: Vec<_> = asked.try_iter().collect();
    assert!(!requests.is_empty() && !requests.contains(&true), "{requests:?}");
}
