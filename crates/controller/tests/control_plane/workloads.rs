//! Pods of every kind of workload lead to one run of their image, made from the workload's own template
//! (contract §3).

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::{DeleteParams, DynamicObject};
use kube::{Api, ResourceExt};
use migrations_testkit::builders::{
    Object, cron_job, daemon_set, deployment, existing, job, pod, replica_set, replication_controller,
    stateful_set,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::admission::APP;
use super::kinds::{CLONE, FLEET, HIDDEN, ROLLOUT, reference};
use super::shop::Shop;

/// A template that says whose it is.
fn template_of(shop: &Shop, whose: &str) -> Object<Pod> {
    pod("web")
        .label(APP, "shop")
        .container_with("app", "shop:v1", json!({ "env": [{ "name": "TEMPLATE_OF", "value": whose }] }))
        .namespace(shop.namespace.name())
}

/// The run of `shop:v1` was made from that template and succeeds; nothing else runs.
async fn migrates_once(shop: &Shop, (kind, name): (&str, &str), template_of: &str) {
    let run = shop.run_starts("shop:v1").await;
    let pods: Api<Pod> = shop.namespace.api();
    let run = pods.get(&run).await.expect("the run's Pod");
    let env = run.spec.as_ref().and_then(|spec| spec.containers[0].env.clone()).unwrap_or_default();
    let value = env.into_iter().find(|it| it.name == "TEMPLATE_OF").and_then(|it| it.value);
    assert_eq!(value.as_deref(), Some(template_of), "whose template it was made from");
    shop.run_ends(&run.name_any(), 0, "").await;
    let status = shop.until_done("shop:v1").await;
    let source = status.source.expect("a source");
    assert_eq!((source.kind.as_str(), source.name.as_str()), (kind, name));
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

/// A workload whose Pods are made by its own controller.
async fn workload_migrates_once<K>(workload: impl FnOnce(&str) -> Object<K>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
{
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let kind = K::kind(&()).into_owned();
    shop.namespace.create(&workload("web").template(&template_of(&shop, &kind))).await;
    migrates_once(&shop, (&kind, "web"), &kind).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_migrated_once() {
    workload_migrates_once(deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_is_migrated_once() {
    // The one node here is never ready.
    let anywhere =
        json!({ "spec": { "template": { "spec": { "tolerations": [{ "operator": "Exists" }] } } } });
    workload_migrates_once(|name| daemon_set(name).with(anywhere)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_is_migrated_once() {
    workload_migrates_once(stateful_set).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_is_migrated_once() {
    workload_migrates_once(replication_controller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_of_nobody_is_migrated_once() {
    workload_migrates_once(replica_set).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_job_is_migrated_once() {
    let never = json!({ "spec": { "template": { "spec": { "restartPolicy": "Never" } } } });
    workload_migrates_once(|name| job(name).with(never)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_pod_is_migrated_once() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&template_of(&shop, "Pod")).await;
    migrates_once(&shop, ("Pod", "web"), "Pod").await;
}

/// Started by hand, as `kubectl create job --from` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_cron_job_is_migrated_once() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let template = template_of(&shop, "CronJob").with(json!({ "spec": { "restartPolicy": "Never" } }));
    let nightly = shop.namespace.create(&cron_job("nightly").template(&template)).await;
    shop.namespace.create(&job("by-hand").template(&template).owned_by(&existing(&nightly))).await;
    migrates_once(&shop, ("CronJob", "nightly"), "CronJob").await;
}

/// A Pod or ReplicaSet that `owner` controls.
fn owned_by<K>(object: Object<K>, owner: &DynamicObject) -> Object<K> {
    object.with(json!({ "metadata": { "ownerReferences": [reference(owner)] } }))
}

/// What Argo Rollouts makes of a revision: a ReplicaSet, and a word about it in the status.
async fn rolls_out(shop: &Shop, rollout: &DynamicObject, hash: &str, image: &str) {
    let image = json!([{ "name": "app", "image": image, "env": [{ "name": "TEMPLATE_OF", "value": "RS" }] }]);
    let template = template_of(shop, "RS")
        .label("rollouts-pod-template-hash", hash)
        .with(json!({ "spec": { "containers": image } }));
    let made = replica_set(&format!("web-{hash}")).template(&template);
    shop.namespace.create(&owned_by(made, rollout)).await;
    // Unlike others, it writes the generation as a text.
    let generation = rollout.metadata.generation.expect("a generation").to_string();
    let status = json!({ "currentPodHash": hash, "observedGeneration": generation });
    ROLLOUT.patch_status(shop, "web", status).await;
}

fn spec_with_template(shop: &Shop, whose: &str) -> Value {
    deployment("web").template(&template_of(shop, whose)).json()["spec"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argo_rollout_is_migrated_once_for_each_image() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let rollout = ROLLOUT.create(&shop, "web", spec_with_template(&shop, "Rollout"), None).await;
    rolls_out(&shop, &rollout, "one", "shop:v1").await;
    migrates_once(&shop, ("Rollout", "web"), "Rollout").await;

    let containers = json!([{ "name": "app", "image": "shop:v2" }]);
    let patch = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
    let rollout = ROLLOUT.patch(&shop, "web", patch).await;
    rolls_out(&shop, &rollout, "two", "shop:v2").await;
    shop.migrate("shop:v2").await;
}

/// As in a move from a Deployment, which is scaled to zero and keeps the template.
#[tokio::test(flavor = "multi_thread")]
async fn an_argo_rollout_that_borrows_its_template_is_migrated_once() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("old").template(&template_of(&shop, "Deployment")).replicas(0)).await;
    let spec = json!({ "workloadRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "old" } });
    let rollout = ROLLOUT.create(&shop, "web", spec, None).await;
    rolls_out(&shop, &rollout, "one", "shop:v1").await;
    migrates_once(&shop, ("Rollout", "web"), "Deployment").await;
}

/// As Knative has them: what people edit is above the Deployment, and has another kind of template.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_below_other_kinds_is_where_the_climb_ends() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let fleet = FLEET.create(&shop, "fleet", json!({}), None).await;
    let clone = CLONE.create(&shop, "clone", json!({}), Some(&fleet)).await;
    let web = deployment("web").template(&template_of(&shop, "Deployment"));
    shop.namespace.create(&owned_by(web, &clone)).await;
    migrates_once(&shop, ("Deployment", "web"), "Deployment").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_unknown_kinds_leads_to_the_last_with_a_template() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let hidden = HIDDEN.create(&shop, "hidden", spec_with_template(&shop, "Hidden"), None).await;
    let fleet = FLEET.create(&shop, "fleet", spec_with_template(&shop, "Fleet"), Some(&hidden)).await;
    let clone = CLONE.create(&shop, "clone", spec_with_template(&shop, "Clone"), Some(&fleet)).await;
    shop.namespace.create(&owned_by(template_of(&shop, "Pod"), &clone)).await;
    migrates_once(&shop, ("Fleet", "fleet"), "Fleet").await;
}

/// It holds up neither its own Pods nor another Migrator.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_may_not_be_read_ends_the_climb() {
    let shop = Shop::beside_others().await;
    let stock = shop.neighbour("stock");
    shop.create_migrator().await;
    stock.create_migrator().await;
    let hidden = HIDDEN.create(&shop, "hidden", spec_with_template(&shop, "Hidden"), None).await;
    shop.namespace.create(&owned_by(template_of(&shop, "Pod"), &hidden)).await;
    shop.namespace.create(&deployment("stock").template(&stock.template("stock:v1"))).await;
    stock.migrate("stock:v1").await;
    migrates_once(&shop, ("Pod", "web"), "Pod").await;
}

/// Its Pods go on without it: what was run for them is done.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_deleted_in_mid_run_loses_no_result_and_causes_no_other_run() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&template_of(&shop, "Deployment"))).await;
    let run = shop.run_starts("shop:v1").await;
    let deployments: Api<Deployment> = shop.namespace.api();
    deployments.delete("web", &DeleteParams::orphan()).await.expect("a Deployment");
    let orphaned = |all: &[ReplicaSet]| all.iter().all(|it| it.owner_references().is_empty()).then_some(());
    shop.namespace.until::<ReplicaSet, _>("an orphan", orphaned).await;
    shop.run_ends(&run, 0, "").await;
    shop.until_done("shop:v1").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}

/// Of a group that was never installed, and of one that is served without that kind.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_a_kind_that_the_api_server_does_not_know_ends_the_climb_below_it() {
    for api_version in ["ghost.example.com/v1", "apps/v1"] {
        let shop = Shop::beside_others().await;
        shop.create_migrator().await;
        let owner = json!({
            "apiVersion": api_version, "kind": "Ghost", "name": "web", "controller": true,
            "uid": "3b0bd5c5-5a5e-4f0e-9f0a-000000000000",
        });
        let unknown = json!({ "metadata": { "ownerReferences": [owner] } });
        shop.namespace.create(&template_of(&shop, "Pod").with(unknown)).await;
        migrates_once(&shop, ("Pod", "web"), "Pod").await;
    }
}
