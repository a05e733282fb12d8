//! The gate while it is put in place and kept there: what must never be written, not even for a moment, and
//! what is written how often.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::time::Duration;

use http::Method;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use migrations_controller::certificates;
use migrations_controller::gate::{GateKeeper, Gates};
use migrations_controller::watch::{Guarded, Queue};
use migrations_core::entries::{Endpoint, configurations, probe};
use migrations_process::probes::Readiness;
use migrations_testkit::builders::existing;
use migrations_testkit::recording::{Fault, RecordingServer};
use serde_json::json;
use tokio::sync::watch;

/// There seems to be no Migrator then: all entries would be taken away, and Pods that come in that
/// moment would start unmigrated.
#[tokio::test(start_paused = true)]
async fn no_entry_is_touched_before_migrators_are_listed() {
    let server = RecordingServer::new();
    let bundle =
        certificates::ensure(&server.client(), "operator", jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    let (migrators, mut writer) = reflector::store::<Guarded>();
    let (readiness, [in_place]) = Readiness::of(["gate"]);
    let keeper = GateKeeper {
        client: server.client(),
        namespace: "operator".to_owned(),
        migrators,
        bundle: watch::channel(Some(bundle)).1,
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

/// The API server refuses the probe as it does when the webhook has answered.
const REACHED: &str = "admission webhook \"probe.migrations.coderanger.net\" denied the request: ";

/// As the manifests ship it.
fn empty(server: &RecordingServer, name: &str) {
    let configuration: MutatingWebhookConfiguration =
        serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    drop(server.clone().holding("mutatingwebhookconfigurations", &existing(&configuration)));
}

/// A tool that applies configurations without entries again and again is put right, but not fought.
#[tokio::test(start_paused = true)]
async fn what_is_changed_back_is_corrected_ever_more_seldom() {
    let server = RecordingServer::new();
    let endpoint = Endpoint { namespace: "operator".to_owned(), ca_bundle: String::new() };
    configurations([], &endpoint).keys().for_each(|name| empty(&server, name));
    server.fail(Fault::refuse_saying(Method::POST, "/pods", 403, &format!("{REACHED}{}", probe::REACHED)));
    let bundle =
        certificates::ensure(&server.client(), "operator", jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    let (migrators, mut writer) = reflector::store::<Guarded>();
    let (readiness, [in_place]) = Readiness::of(["gate"]);
    let (_sender, bundle) = watch::channel(Some(bundle));
    let keeper = GateKeeper {
        client: server.client(),
        namespace: "operator".to_owned(),
        migrators,
        bundle,
        gates: Gates::default(),
        queue: Queue::new().0,
        in_place,
    };
    for event in [Event::Init, Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let keeping = tokio::spawn(keeper.run());
    let required = "zz-migrations-required";
    let corrections = || {
        let writes = server.writes();
        writes.iter().filter(|it| it.starts_with("PUT") && it.ends_with(required)).count()
    };
    let mut seen = Vec::new();
    for minute in 0..60 {
        tokio::time::sleep(Duration::from_secs(59)).await;
        if corrections() > seen.len() {
            seen.push(minute);
        }
        empty(&server, required);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(readiness.missing().next().is_none());
    assert_eq!(seen, [0, 1, 3, 7, 15, 31, 47]);
    keeping.abort();
}
