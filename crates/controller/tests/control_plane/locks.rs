//! Migrators that name one lock never run at the same time (contract §5).

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use migrations_api::{Migrator, names};
use migrations_testkit::builders::deployment;
use serde_json::json;

use super::shared::SHARED_LOCK;
use super::shop::Shop;

impl Shop {
    /// With a Migrator that names `lock`, and a Deployment of the Migrator's name.
    async fn open_with_lock(&self, lock: &str, image: &str) {
        self.namespace.create(&self.migrator().with(json!({ "spec": { "lock": lock } }))).await;
        let workload = deployment(image.split(':').next().unwrap_or_default());
        self.namespace.create(&workload.template(&self.template(image))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_migrators_with_one_lock_one_waits_for_the_other() {
    let shop = Shop::beside_others().await;
    let stock = shop.neighbour("stock");
    shop.open_with_lock("database", "shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    stock.open_with_lock("database", "stock:v1").await;
    let status = stock.until_reason("Locked").await;
    assert!(
        status.conditions[0].message.contains("held by Migrator shop"),
        "{}",
        status.conditions[0].message
    );
    assert_eq!(stock.runs().await, 0);
    shop.run_ends(&run, 0, "").await;
    stock.migrate("stock:v1").await;
    // At rest nobody holds it.
    let leases = Api::<Lease>::namespaced(shop.namespace.client(), names::OPERATOR_NAMESPACE);
    let lease = names::lock_lease(Some(shop.namespace.name()), "database");
    let given_back = |all: &[Lease]| {
        let held = all.iter().any(|it| it.metadata.name.as_ref() == Some(&lease));
        (!held).then_some(())
    };
    migrations_testkit::cluster::until(&leases, "the lock to be given back", given_back).await;
}

/// Not before nothing of its run is left: a Pod may go on for a while after its Job is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_deleted_migrator_is_free_once_its_run_has_ended() {
    let shop = Shop::beside_others().await;
    let stock = shop.neighbour("stock");
    shop.open_with_lock("database", "shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    stock.open_with_lock("database", "stock:v1").await;
    stock.until_reason("Locked").await;
    shop.delete::<Migrator>("shop").await;
    shop.namespace.until::<Job, _>("no Job", |jobs| jobs.is_empty().then_some(())).await;
    // Has it looked at now, rather than in a while.
    stock.patch::<Migrator>("stock", json!({ "spec": { "successfulJobsHistoryLimit": 2 } })).await;
    stock
        .until_status("another look", |status| {
            status.observed_generation == Some(2) && status.conditions[0].reason == "Locked"
        })
        .await;
    shop.until_pod_ends(&run).await;
    stock.migrate("stock:v1").await;
}

/// Its Pod has ended, but a Job that is there may make another.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_deleted_migrator_is_held_while_its_job_is_there() {
    let shop = Shop::beside_others().await;
    let stock = shop.neighbour("stock");
    shop.open_with_lock("database", "shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    stock.open_with_lock("database", "stock:v1").await;
    stock.until_reason("Locked").await;
    let job = shop.status().await.current.expect("a run").job;
    let finalizers = |all: serde_json::Value| json!({ "metadata": { "finalizers": all } });
    shop.patch::<Job>(&job, finalizers(json!(["example.com/kept"]))).await;
    shop.delete::<Migrator>("shop").await;
    let kept = |jobs: &[Job]| jobs.iter().all(|it| it.metadata.deletion_timestamp.is_some()).then_some(());
    shop.namespace.until::<Job, _>("a Job that is being deleted", kept).await;
    shop.run_ends(&run, 0, "").await;
    // Looked at twice: as watched, and as read again.
    for limit in [2, 3] {
        stock.patch::<Migrator>("stock", json!({ "spec": { "successfulJobsHistoryLimit": limit } })).await;
        stock
            .until_status("another look", |status| {
                status.observed_generation == Some(limit) && status.conditions[0].reason == "Locked"
            })
            .await;
    }
    assert_eq!(stock.runs().await, 0);
    shop.patch::<Job>(&job, finalizers(json!(null))).await;
    stock.migrate("stock:v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_lock_holds_for_all_namespaces_and_others_do_not() {
    let here = Shop::beside_others().await;
    let there = Shop::beside_others().await;
    here.open_with_lock(SHARED_LOCK, "shop:v1").await;
    let run = here.run_starts("shop:v1").await;
    there.open_with_lock(SHARED_LOCK, "shop:v1").await;
    let status = there.until_reason("Locked").await;
    assert!(status.conditions[0].message.contains(here.namespace.name()), "{}", status.conditions[0].message);

    let (here_too, there_too) = (here.neighbour("stock"), there.neighbour("stock"));
    here_too.open_with_lock("database", "stock:v1").await;
    here_too.run_starts("stock:v1").await;
    there_too.open_with_lock("database", "stock:v1").await;
    there_too.run_starts("stock:v1").await;

    here.run_ends(&run, 0, "").await;
    there.migrate("shop:v1").await;
}
