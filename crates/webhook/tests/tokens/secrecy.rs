//! Tokens are in no log, not even at the finest level.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use migrations_testkit::builders::{migrator, pod};
use migrations_testkit::cluster::{ControlPlane, free_ports};
use serde_json::json;

use crate::webhook::{arguments, ask, authority, question, token, until_served};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_in_no_log() {
    let plane = ControlPlane::shared().await;
    authority(plane).await;
    let namespace = plane.namespace().await;
    namespace.create(&migrator("shop").selecting("app", "shop")).await;
    let pod = namespace.create(&pod("shop").label("app", "shop").container("app", "shop:2")).await;
    let good = token(&namespace, &json!({}), Some(&pod)).await;
    let podless = token(&namespace, &json!({}), None).await;
    let unknown = format!("{}c2VjcmV0", &good[..good.len() - 8]);

    let [port, admission, probes] = free_ports();
    let mut webhook = Program(
        Command::new(env!("CARGO_BIN_EXE_migrations-webhook"))
            .args(&arguments(port, admission, probes)[1..])
            .env("KUBECONFIG", plane.kubeconfig())
            .env("LOG", "trace")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut output = webhook.0.stdout.take().unwrap();
    let read = std::thread::spawn(move || {
        let mut log = Vec::new();
        output.read_to_end(&mut log).map(|_| String::from_utf8_lossy(&log).into_owned())
    });
    tokio::time::timeout(Duration::from_mins(1), until_served(port)).await.unwrap();
    for (token, status) in
        [(&good, 200), (&podless, 403), (&unknown, 401), (&"e30.e30.secret".to_owned(), 401)]
    {
        let (answered, body) = ask(plane, port, token, &question(namespace.name(), None)).await;
        assert_eq!(answered, status, "{body}");
        assert!(!body.contains(token.as_str()), "{body}");
    }
    drop(webhook);
    let log = read.join().unwrap().unwrap();

    assert!(log.contains("a question is refused"), "it says nothing at all:\n{log}");
    for token in [&good, &podless, &unknown] {
        let mut parts = token.split('.').skip(1);
        let (claims, signature) = (parts.next().unwrap(), parts.next().unwrap());
        for part in [claims, signature] {
            let at = log.find(part);
            assert_eq!(at, None, "{}", at.map_or("", |at| &log[at.saturating_sub(200)..at]));
        }
    }
    assert!(!log.contains("e30.e30.secret"));
}

/// Ends with the test, however that ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
