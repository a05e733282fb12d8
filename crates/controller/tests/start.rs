//! What the controller does at its start while it can't do anything.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::time::Duration;

use kube::{Client, Config};
use migrations_controller::metrics::Metrics;
use migrations_controller::{PARTS, Parts, run};
use migrations_core::snapshot::Policy;
use migrations_process::probes::Readiness;
use migrations_process::shutdown::Shutdown;

/// It goes on trying, and says that it is not ready; it neither ends nor panics.
#[tokio::test]
async fn an_unreachable_api_server_is_waited_for() {
    // Port 1 is reserved and refuses connections at once.
    let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let (readiness, [lease, migrators, jobs, gate]) = Readiness::of(PARTS);
    let (end, shutdown) = Shutdown::by_hand();
    let parts = Parts { lease, migrators, jobs, gate };
    let running = tokio::spawn(Box::pin(run(
        client,
        "operator".to_owned(),
        "replica".to_owned(),
        Policy::default(),
        parts,
        Metrics::default(),
        shutdown,
    )));
    // Long enough for several attempts: the first pauses are below a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!running.is_finished());
    assert_eq!(readiness.missing().collect::<Vec<_>>(), PARTS);
    end.request();
    running.await.unwrap();
}
