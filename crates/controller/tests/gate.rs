//! The gate while it is put in place: what must never be written, not even for a moment.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::time::Duration;

use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use migrations_controller::certificates::CertificateKeeper;
use migrations_controller::gate::{GateKeeper, Gates};
use migrations_controller::watch::{Guarded, Queue};
use migrations_core::certificates::Lifetimes;
use migrations_process::probes::Readiness;
use migrations_testkit::recording::RecordingServer;
use tokio::sync::watch;

/// There seems to be no Migrator then: all entries would be taken away, and Pods that come in that
/// moment would start unmigrated.
#[tokio::test(start_paused = true)]
async fn no_entry_is_touched_before_migrators_are_listed() {
    let server = RecordingServer::new();
    let (migrators, mut writer) = reflector::store::<Guarded>();
    let (told, bundle) = watch::channel(None);
    let lifetimes = Lifetimes::default();
    // Made elsewhere: whatever this server is asked, the gate has asked.
    let elsewhere = RecordingServer::new().client();
    CertificateKeeper::new(elsewhere, "operator", lifetimes, migrators.clone(), told)
        .look(jiff::Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    let (readiness, [in_place]) = Readiness::of(["gate"]);
    let keeper = GateKeeper {
        client: server.client(),
        namespace: "operator".to_owned(),
        migrators,
        bundle,
        gates: Gates::default(),
        queue: Queue::new().0,
        in_place,
    };
    let asked = || server.requests().iter().filter(|it| it.path.contains("mutatingwebhook")).count();
    let keeping = tokio::spawn(keeper.run());
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(asked(), 0);
    assert!(readiness.missing().next().is_some());

    for event in [Event::Init, Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(asked() > 0);
    keeping.abort();
}
