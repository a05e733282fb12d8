//! What is due, what is not, and what is done without a run (contract §3).

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use migrations_api::{How, Migrator, MigratorStatus, names};
use migrations_testkit::builders::{cron_job, deployment, existing, job, stateful_set};
use serde_json::json;

use super::shop::Shop;

/// A shop whose Migrator is there.
async fn shop() -> Shop {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop
}

fn done_keys(status: &MigratorStatus) -> Vec<(&str, How)> {
    status.done.iter().map(|it| (it.key.as_str(), it.how)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_a_paused_deployment_is_not_due_until_it_goes_on() {
    let shop = shop().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.migrate("shop:v1").await;
    shop.patch::<Deployment>("web", json!({ "spec": { "paused": true } })).await;
    shop.set_image("shop:v2").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
    shop.patch::<Deployment>("web", json!({ "spec": { "paused": false } })).await;
    shop.migrate("shop:v2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_above_the_partition_of_a_stateful_set_is_not_due_until_it_falls() {
    let shop = shop().await;
    let partition = |partition: i32| {
        json!({ "spec": { "updateStrategy": {
            "type": "RollingUpdate", "rollingUpdate": { "partition": partition },
        } } })
    };
    let web = stateful_set("web").template(&shop.template("shop:v1")).with(partition(1));
    shop.namespace.create(&web).await;
    shop.migrate("shop:v1").await;
    shop.pods_start("shop:v1").await;
    shop.set_image_of::<StatefulSet>("web", "shop:v2").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
    shop.patch::<StatefulSet>("web", partition(0)).await;
    shop.until_pod_ends("web-0").await;
    shop.migrate("shop:v2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_takes_effect_on_deletion_is_not_due_before_it() {
    let shop = shop().await;
    let on_delete = json!({ "spec": { "updateStrategy": { "type": "OnDelete" } } });
    let web = stateful_set("web").template(&shop.template("shop:v1")).with(on_delete);
    shop.namespace.create(&web).await;
    shop.migrate("shop:v1").await;
    shop.pods_start("shop:v1").await;
    shop.set_image_of::<StatefulSet>("web", "shop:v2").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
    shop.delete::<Pod>("web-0").await;
    shop.until_pod_ends("web-0").await;
    shop.migrate("shop:v2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workloads_with_two_images_get_a_run_each() {
    let shop = shop().await;
    let worker = shop.template("worker:v1").label("role", "worker");
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1").label("role", "web"))).await;
    shop.migrate("shop:v1").await;
    shop.namespace.create(&deployment("worker").template(&worker)).await;
    shop.migrate("worker:v1").await;
    // Neither takes the other's place.
    assert_eq!(shop.all_runs().await, ["shop:v1", "worker:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_the_template_selector_follows_and_is_released_by_its_revision() {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&shop.migrator().taking_templates_from("role", "web")).await;
    let worker = shop.template("worker:v1").label("role", "worker");
    shop.namespace.create(&deployment("worker").template(&worker)).await;
    let status = shop.until_reason("NoSource").await;
    assert_eq!(status.waiting, Some(1));
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1").label("role", "web"))).await;
    shop.migrate("shop:v1").await;
    let revision = shop.revision_of(&shop.until_pods("worker:v1").await[0]).await;
    let status = shop
        .until_status("the follower's revision", |status| {
            status.done.iter().any(|it| it.key == "shop:v1" && it.revisions.contains(&revision))
        })
        .await;
    assert_eq!(status.waiting, Some(0));
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_to_what_is_done_runs_nothing() {
    let shop = shop().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.migrate("shop:v1").await;
    shop.set_image("shop:v2").await;
    shop.migrate("shop:v2").await;
    shop.set_image("shop:v1").await;
    shop.until_pods("shop:v1").await;
    let runs = shop.all_runs().await;
    assert_eq!(runs, ["shop:v1", "shop:v2"]);
    assert_eq!(shop.status().await.waiting, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_made_again_waits_for_the_run_of_the_one_before() {
    let shop = shop().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.delete::<Migrator>("shop").await;
    // Its Job goes with it; the Pod of that is asked to end.
    shop.until_terminating(&run).await;
    shop.create_migrator().await;
    shop.until_reason("EarlierRunUnfinished").await;
    shop.namespace.end_pod(&run).await;
    shop.migrate("shop:v1").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_original_migrated_last_stays_done() {
    let shop = Shop::beside_others().await;
    let status =
        MigratorStatus { last_successful_migration: Some("shop:v1".to_owned()), ..MigratorStatus::default() };
    shop.namespace.create(&shop.migrator().status(&status)).await;
    shop.until_done("shop:v1").await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_pods("shop:v1").await;
    assert_eq!(shop.all_runs().await, [""; 0]);
    shop.set_image("shop:v2").await;
    shop.migrate("shop:v2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rerun_on_template_a_restart_is_a_migration() {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&shop.migrator().with(json!({ "spec": { "rerunOn": "Template" } }))).await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.migrate("shop:v1").await;
    // As `kubectl rollout restart` does.
    let annotations = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
    let template = json!({ "metadata": { "annotations": annotations } });
    shop.patch::<Deployment>("web", json!({ "spec": { "template": template } })).await;
    shop.migrate("shop:v1").await;
    assert_eq!(shop.all_runs().await, ["shop:v1", "shop:v1"]);
}

/// A database that was mended by hand, or restored.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_marked_as_done_is_not_run() {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&shop.migrator().annotation(names::DONE_ANNOTATION, "shop:v1")).await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_pods("shop:v1").await;
    assert_eq!(shop.all_runs().await, [""; 0]);
    let status = shop.status().await;
    assert!(done_keys(&status).contains(&("shop:v1", How::Marked)), "{:?}", status.done);
    assert_eq!(status.waiting, Some(0));

    shop.pods_start("shop:v1").await;
    shop.set_image("shop:v2").await;
    let run = shop.run_starts("shop:v2").await;
    shop.run_ends(&run, 1, "no such column").await;
    shop.until_reason("MigrationFailed").await;
    let annotations = json!({ names::DONE_ANNOTATION: "shop:v2" });
    shop.patch::<Migrator>("shop", json!({ "metadata": { "annotations": annotations } })).await;
    let status = shop.until_done("shop:v2").await;
    assert_eq!(done_keys(&status)[0], ("shop:v2", How::Marked));
    assert_eq!(status.waiting, Some(0));
}

/// In a StatefulSet nobody would ever replace a Pod that never becomes ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_pod_of_a_stateful_set_is_deleted_and_replaced() {
    let shop = shop().await;
    shop.namespace.create(&stateful_set("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.run_ends(&run, 1, "no such column").await;
    shop.until_reason("MigrationFailed").await;
    let before = shop.uid_of("web-0").await;
    shop.set_image_of::<StatefulSet>("web", "shop:v2").await;
    shop.migrate("shop:v2").await;
    assert_ne!(shop.uid_of("web-0").await, before);
    shop.until_event("Superseded", "deleted Pod web-0").await;
}

/// The way out that a failure names: the image stays, the environment is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_mended_template_of_a_stateful_set_is_run_although_its_image_is_the_same() {
    let shop = shop().await;
    shop.namespace.create(&stateful_set("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.run_ends(&run, 1, "no such host").await;
    shop.until_reason("MigrationFailed").await;
    let before = shop.uid_of("web-0").await;
    let mended = json!([{ "name": "app", "image": "shop:v1", "env": [{ "name": "DB", "value": "mended" }] }]);
    let template = json!({ "spec": { "containers": mended } });
    shop.patch::<StatefulSet>("web", json!({ "spec": { "template": template } })).await;
    let status = shop.migrate("shop:v1").await;
    assert_eq!((status.waiting, shop.all_runs().await.len()), (Some(0), 2));
    assert_ne!(shop.uid_of("web-0").await, before);
}

/// A Job is replaced by nobody: the way out is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_pod_of_a_job_is_told() {
    let shop = shop().await;
    let template = shop.template("shop:v1").with(json!({ "spec": { "restartPolicy": "Never" } }));
    let nightly = shop.namespace.create(&cron_job("nightly").template(&template)).await;
    let made = shop.namespace.create(&job("tonight").template(&template).owned_by(&existing(&nightly))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.run_ends(&run, 1, "no such column").await;
    shop.until_reason("MigrationFailed").await;
    let containers = json!([{ "name": "app", "image": "shop:v2" }]);
    let template = json!({ "spec": { "containers": containers } });
    let patch = json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } });
    shop.patch::<CronJob>("nightly", patch).await;
    let superseded = |status: &MigratorStatus| {
        status.superseded.iter().any(|it| Some(&it.revision) == made.metadata.uid.as_ref())
    };
    shop.until_status("a superseded Job", superseded).await;
    shop.until_event("Superseded", "kubectl delete job tonight").await;
    shop.delete::<Job>("tonight").await;
    shop.until_status("none", |status| status.superseded.is_empty()).await;
}

/// The Migrator came together with a new version.
#[tokio::test(flavor = "multi_thread")]
async fn what_serves_already_is_done_without_a_run() {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1")).replicas(2)).await;
    let deployed = |all: &[Pod]| (all.len() == 2).then_some(());
    shop.namespace.until::<Pod, _>("both Pods", deployed).await;
    shop.pods_start("shop:v1").await;
    shop.set_image("shop:v2").await;
    shop.until_pods("shop:v2").await;
    shop.create_migrator().await;
    let status = shop.migrate("shop:v2").await;
    assert_eq!(done_keys(&status), [("shop:v2", How::Succeeded), ("shop:v1", How::Baseline)]);
    assert_eq!(shop.all_runs().await, ["shop:v2"]);
}
