//! Install, upgrade, rollback, failure and repair, with real workload and Job controllers.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use migrations_api::{Migrator, RunResult, names};
use migrations_testkit::builders::pod;
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;

use super::shop::{Shop, until_entry_says, until_ready};
use super::webhook;

#[tokio::test(flavor = "multi_thread")]
async fn install_upgrade_failure_rollback_and_repair() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    until_ready(&controller.readiness).await;
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    shop.namespace
        .until::<ConfigMap, _>("the waiters' trust", |all| {
            all.iter()
                .any(|it| it.metadata.name.as_deref() == Some(names::CA_BUNDLE_CONFIG_MAP))
                .then_some(())
        })
        .await;

    // Install.
    shop.deploy("shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    let status = shop.until_reason("Running").await;
    assert_eq!(
        status.source.as_ref().map(|it| (it.kind.as_str(), it.name.as_str())),
        Some(("Deployment", "web"))
    );
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
    let status = shop.until_reason("UpToDate").await;
    assert_eq!(status.last_successful_migration.as_deref(), Some("shop:v1"));
    until_entry_says(plane.client(), r#"in [\"shop:v1\"]"#).await;

    // Upgrade: fails.
    shop.set_image("shop:v2").await;
    let run = shop.run_starts("shop:v2").await;
    shop.namespace
        .end_container(&run, names::RUN_CONTAINER, 1, "Traceback\nValueError: no such column")
        .await;
    let status = shop.until_reason("MigrationFailed").await;
    assert!(status.history[0].message.contains("no such column"));
    for kind in ["Migrator", "Deployment"] {
        let told = |all: &[Event]| {
            let of_kind = |it: &&Event| it.regarding.as_ref().and_then(|it| it.kind.as_deref()) == Some(kind);
            let says = |it: &&Event| it.note.as_deref().unwrap_or_default().contains("no such column");
            all.iter().filter(of_kind).find(says).map(drop)
        };
        shop.namespace.until::<Event, _>("the failure's event", told).await;
    }

    // Rollback: nothing runs.
    shop.set_image("shop:v1").await;
    shop.until_reason("UpToDate").await;

    // Repair.
    shop.set_image("shop:v3").await;
    let run = shop.run_starts("shop:v3").await;
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
    let status = shop.until_done("shop:v3").await;
    let results: Vec<_> = status.history.iter().rev().map(|it| (it.image.as_str(), it.result)).collect();
    assert_eq!(
        results,
        [
            ("shop:v1", RunResult::Succeeded),
            ("shop:v2", RunResult::Failed),
            ("shop:v3", RunResult::Succeeded)
        ]
    );
    // Of the successes only the newest Job is kept for its log.
    shop.namespace.until::<Job, _>("two Jobs", |jobs| (jobs.len() == 2).then_some(())).await;
    for line in [
        "migrations_runs_total{result=\"Succeeded\"} 2",
        "migrations_runs_total{result=\"Failed\"} 1",
        "migrations_leader 1",
        "migrations_migrators{reason=\"UpToDate\"} 1",
        "migrations_certificate_expiration_timestamp_seconds ",
    ] {
        controller.until_it_counts(line).await;
    }
    controller.stop().await;
}

/// The webhook is gone: exactly the Pods that would have to wait are refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_entries_hold_pods_that_must_wait_and_no_others() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open_without_webhook(&plane).await;
    let webhook = webhook::serve(&plane, &shop.operator).await;
    let controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    webhook.request();
    let pods: Api<Pod> = shop.namespace.api();
    let create = async |name: &str, label: &str, image: &str| {
        let pod = pod(name).namespace(shop.namespace.name()).label("app", label).container("app", image);
        pods.create(&PostParams::default(), &pod.build()).await
    };
    // The API server takes up a changed entry a moment after it is written.
    let mut attempts = 0;
    while let Ok(early) = create(&format!("early-{attempts}"), "shop", "shop:v2").await {
        assert!(attempts < 100, "never refused: {:?}", early.metadata.name);
        attempts += 1;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refusal = create("waits", "shop", "shop:v2").await.expect_err("there is no webhook").to_string();
    assert!(refusal.contains(names::GROUP), "{refusal}");
    create("unrelated", "other", "shop:v2").await.expect("no Migrator selects it");
    let exempt = pod("exempt")
        .namespace(shop.namespace.name())
        .label("app", "shop")
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .container("app", "shop:v2");
    pods.create(&PostParams::default(), &exempt.build()).await.expect("it is annotated");
    controller.stop().await;
}

/// As when a namespace is deleted and made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_made_again_finds_the_waiters_trust_in_place() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    let bundles: Api<ConfigMap> = shop.namespace.api();
    let migrators: Api<Migrator> = shop.namespace.api();
    for _ in 0..2 {
        shop.create_migrator().await;
        shop.until_reason("Idle").await;
        bundles.get(names::CA_BUNDLE_CONFIG_MAP).await.expect("waiters of the namespace need it");
        migrators.delete("shop", &DeleteParams::default()).await.expect("a Migrator");
        bundles.delete(names::CA_BUNDLE_CONFIG_MAP, &DeleteParams::default()).await.expect("a ConfigMap");
    }
    controller.stop().await;
}

/// Told in the API server's words, in the condition and in an event, and over once it is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_api_server_refuses_is_told_and_tried_again() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    shop.create_migrator().await;
    let migrators: Api<Migrator> = shop.namespace.api();
    let label = async |value: &str| {
        let patch = Patch::Merge(json!({ "spec": { "labels": { "team": value } } }));
        migrators.patch("shop", &PatchParams::default(), &patch).await.expect("the schema lets it pass");
    };
    label("not a label!").await;
    shop.deploy("shop:v1").await;
    let status = shop.until_reason("JobRefused").await;
    assert!(status.conditions[0].message.contains("not a label!"), "{}", status.conditions[0].message);
    let told = |all: &[Event]| all.iter().find(|it| it.reason.as_deref() == Some("JobRefused")).map(drop);
    shop.namespace.until::<Event, _>("the refusal's event", told).await;

    label("shop").await;
    let run = shop.run_starts("shop:v1").await;
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
    shop.until_done("shop:v1").await;
    controller.stop().await;
}
