//! Jobs and Pods of runs are deleted, lost, evicted, doubled and impersonated: what ran counts, and what
//! nobody saw end is never run again by itself (contract §5).

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use migrations_api::{Migrator, RunResult, names};
use migrations_testkit::builders::{deployment, existing, job, pod};
use migrations_testkit::cluster::NODE;
use serde_json::{Value, json};

use super::shop::Shop;

/// A shop whose first migration runs, in the Pod of that name.
async fn migrating() -> (Shop, String) {
    migrating_with(json!({})).await
}

async fn migrating_with(spec: Value) -> (Shop, String) {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&shop.migrator().with(json!({ "spec": spec }))).await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    (shop, run)
}

async fn delete_current_job(shop: &Shop) {
    let current = shop.status().await.current.expect("a run");
    shop.delete::<Job>(&current.job).await;
}

/// Its node needs the memory for something else. Just now: the next attempt comes after a while.
async fn evict(shop: &Shop, run: &str) {
    let container = json!({
        "name": names::RUN_CONTAINER, "image": "shop:v1", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 137, "reason": "Error" } },
    });
    let status = json!({ "phase": "Failed", "reason": "Evicted", "containerStatuses": [container] });
    shop.namespace.set_pod_status(run, status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_a_pod_counts_whose_job_was_deleted() {
    let (shop, run) = migrating().await;
    delete_current_job(&shop).await;
    shop.until_terminating(&run).await;
    shop.run_ends(&run, 0, "").await;
    shop.until_done("shop:v1").await;
    shop.namespace.end_pod(&run).await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_vanished_is_unknown_until_someone_asks_for_another() {
    let (shop, run) = migrating().await;
    delete_current_job(&shop).await;
    shop.until_pod_ends(&run).await;
    let status = shop.until_reason("ResultUnknown").await;
    assert_eq!(status.history[0].result, RunResult::Unknown);

    // Others go on meanwhile.
    shop.namespace
        .create(&deployment("other").template(&shop.template("other:v1").label("role", "other")))
        .await;
    shop.migrate("other:v1").await;
    let status = shop.until_reason("ResultUnknown").await;
    assert_eq!(status.history.len(), 2);

    let annotations = json!({ names::RUN_ANNOTATION: "again" });
    shop.patch::<Migrator>("shop", json!({ "metadata": { "annotations": annotations } })).await;
    shop.migrate("shop:v1").await;
    // Whatever is deployed is run once more.
    shop.migrate("other:v1").await;
    assert_eq!(shop.all_runs().await, ["shop:v1", "other:v1", "shop:v1", "other:v1"]);
}

/// As by a TTL, or by hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_an_ended_run_may_go() {
    let (shop, run) = migrating().await;
    shop.run_ends(&run, 0, "").await;
    let status = shop.until_done("shop:v1").await;
    let job = &status.history[0].job;
    shop.delete::<Job>(job).await;
    shop.namespace.until::<Job, _>("no Job", |jobs| jobs.is_empty().then_some(())).await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

/// As a Job controller makes that saw too little.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_beside_a_second_pod_of_a_job() {
    let (shop, run) = migrating().await;
    let pods: Api<Pod> = shop.namespace.api();
    let first = pods.get(&run).await.expect("the run's Pod");
    let jobs: Api<Job> = shop.namespace.api();
    let job = jobs.get(&shop.status().await.current.expect("a run").job).await.expect("its Job");
    let labels = json!({ "metadata": { "labels": first.labels() } });
    let second = pod("second")
        .with(labels)
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .container(names::RUN_CONTAINER, "shop:v1")
        .owned_by(&existing(&job))
        .on_node(NODE);
    shop.namespace.create(&second).await;
    shop.run_ends(&run, 0, "").await;
    shop.until_done("shop:v1").await;
    shop.set_image("shop:v2").await;
    let status = shop.until_reason("EarlierRunUnfinished").await;
    assert!(status.conditions[0].message.contains("Pod second"), "{}", status.conditions[0].message);
    shop.namespace.end_pod("second").await;
    shop.migrate("shop:v2").await;
}

/// What is said of a Pod whose node is gone: its containers seem to run for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_lost_with_its_node_is_unknown() {
    let (shop, run) = migrating().await;
    shop.namespace.set_pod_status(&run, json!({ "phase": "Failed", "reason": "NodeLost" })).await;
    let status = shop.until_reason("ResultUnknown").await;
    assert_eq!(status.history[0].result, RunResult::Unknown);
}

/// As a kubelet writes it that comes back and finds the container no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_kubelet_lost_is_unknown() {
    let (shop, run) = migrating().await;
    let lost = json!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown" } });
    let container = json!({
        "name": names::RUN_CONTAINER, "image": "shop:v1", "imageID": "", "ready": false, "restartCount": 1,
        "state": lost, "lastState": lost,
    });
    shop.namespace.set_pod_status(&run, json!({ "phase": "Failed", "containerStatuses": [container] })).await;
    let status = shop.until_reason("ResultUnknown").await;
    assert_eq!(status.history[0].result, RunResult::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_run_has_failed_and_is_tried_again_after_a_while() {
    let (shop, run) = migrating_with(json!({ "backoffLimit": 1 })).await;
    evict(&shop, &run).await;
    let status = shop.until_reason("BackOff").await;
    assert!(status.conditions[0].message.contains("exit code 137"), "{}", status.conditions[0].message);
    assert!(status.current.is_none(), "not at once");
    let status = shop.migrate("shop:v1").await;
    assert_eq!(status.history[0].attempts, 2);
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_job_of_the_runs_name_is_told_and_left_alone() {
    let (shop, run) = migrating_with(json!({ "backoffLimit": 1 })).await;
    evict(&shop, &run).await;
    let status = shop.until_reason("BackOff").await;
    // The name of the next attempt.
    let name =
        status.history[0].job.strip_suffix("-1").map(|name| format!("{name}-2")).expect("a first attempt");
    let template =
        pod("").container("app", "theirs:v1").with(json!({ "spec": { "restartPolicy": "Never" } }));
    let theirs = job(&name).template(&template).with(json!({ "spec": { "suspend": true } }));
    let theirs = shop.namespace.create(&theirs).await;
    let status = shop.until_reason("ForeignJob").await;
    assert!(status.conditions[0].message.contains(&name), "{}", status.conditions[0].message);
    let jobs: Api<Job> = shop.namespace.api();
    assert_eq!(jobs.get(&name).await.expect("their Job").uid(), theirs.uid());
    shop.delete::<Job>(&name).await;
    shop.migrate("shop:v1").await;
}

/// As the original makes it: the Pod carries the Migrator's name, the Job carries nothing of the kind.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_beside_a_run_of_the_original() {
    let shop = Shop::beside_others().await;
    let template = pod("web")
        .label("migrations", "shop")
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .container("migrations", "shop:v0")
        .with(json!({ "spec": { "restartPolicy": "Never" } }));
    shop.namespace.create(&job("shop-migrations").template(&template)).await;
    let original = shop.run_starts("shop:v0").await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_reason("EarlierRunUnfinished").await;
    shop.run_ends(&original, 0, "").await;
    shop.migrate("shop:v1").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}
