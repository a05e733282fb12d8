//! How long a waiter takes from the write that releases it to its end, with a real API server between
//! them:
//!
//! ```sh
//! KUBEBUILDER_ASSETS=<folder> cargo bench -p migrations-webhook --features control-plane --bench release -- WAITER
//! ```
//!
//! WAITER is the waiter's binary. docs/performance.md says what it gave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement ends with a panic")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[allow(dead_code, reason = "tests ask it more")]
#[path = "../tests/tokens/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "tests ask it more")]
#[path = "../tests/tokens/webhook.rs"]
mod webhook;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use migrations_api::Migrator;
use migrations_protocol::{
    ANNOTATIONS_FILE, Arguments, CA_FILE, Container, EXIT_RELEASED, TOKEN_FILE, UID_FILE,
};
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;

use webhook::Webhook;

/// How many waiters are released, one after the other.
const ROUNDS: usize = 200;

/// How long a waiter's next question takes to be held, at most.
const HELD: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() {
    let waiter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let waiter = PathBuf::from(waiter.expect("the waiter's binary is an argument"));
    let webhook = Webhook::start().await;
    let files = files(&webhook).await;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        forget(&webhook).await;
        let mut child = loop {
            // The webhook may not have heard yet that nothing is done any more.
            if let Some(waits) = until_it_waits(start(&waiter, &webhook, files.path())) {
                break waits;
            }
        };
        tokio::time::sleep(HELD).await;
        let ended = tokio::task::spawn_blocking(move || (child.wait().unwrap().code(), Instant::now()));
        webhook.done("shop:2", &[]).await;
        let acknowledged = Instant::now();
        let (code, ended) = ended.await.unwrap();
        assert_eq!(code, Some(EXIT_RELEASED.into()));
        times.push(ended.saturating_duration_since(acknowledged));
    }
    times.sort_unstable();
    println!("| waiters | half of them ended after | p95 | p99 | the slowest |");
    println!("|---|---|---|---|---|");
    println!(
        "| {ROUNDS} | {:.1?} | {:.1?} | {:.1?} | {:.1?} |",
        times[ROUNDS / 2],
        times[ROUNDS * 95 / 100],
        times[ROUNDS * 99 / 100],
        times[ROUNDS - 1]
    );
}

/// Takes back what was done.
async fn forget(webhook: &Webhook) {
    let nothing = Patch::Merge(json!({ "status": { "done": [] } }));
    let migrators = webhook.namespace.api::<Migrator>();
    migrators.patch_status("shop", &PatchParams::default(), &nothing).await.unwrap();
}

/// A waiter's directory.
async fn files(webhook: &Webhook) -> tempfile::TempDir {
    let pod = webhook.pod("waits").await;
    let token = webhook.token(&json!({}), Some(&pod)).await;
    let authority = webhook::authority(ControlPlane::shared().await).await;
    let uid = pod.metadata.uid.unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (file, content) in
        [(CA_FILE, authority.as_str()), (TOKEN_FILE, &token), (UID_FILE, &uid), (ANNOTATIONS_FILE, "")]
    {
        fs::write(directory.path().join(file), content).unwrap();
    }
    directory
}

fn start(waiter: &Path, webhook: &Webhook, files: &Path) -> Child {
    let arguments = Arguments {
        namespace: webhook.namespace.name().to_owned(),
        migrator: "shop".to_owned(),
        containers: vec![Container { name: "app".to_owned(), image: "shop:2".to_owned() }],
        revision: None,
        follower: false,
        labels: BTreeMap::new(),
        servers: vec![format!("127.0.0.1:{}", webhook.question_port)],
        server_name: "127.0.0.1".to_owned(),
        files: files.to_owned(),
        timeout: None,
    };
    Command::new(waiter).args(arguments.to_args()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Returns once it has told what it waits for: its next question is held. None where it was released
/// before.
fn until_it_waits(mut waiter: Child) -> Option<Child> {
    let mut said = BufReader::new(waiter.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("waits for the migrations of shop:2") {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            assert_eq!(waiter.wait().unwrap().code(), Some(EXIT_RELEASED.into()));
            return None;
        }
    }
    // What it says further is nobody's to read, and no reason for it to end.
    Some(waiter)
}
