//! The controller's service account is refused nothing, and uses every right that the manifests give it:
//! one story with every kind of request in it, held against the API server's audit log.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::Api;
use kube::api::PostParams;
use migrations_api::{Migrator, RunResult, names};
use migrations_core::snapshot::Policy;
use migrations_testkit::builders::{
    cron_job, daemon_set, deployment, existing, job, pod, replica_set, replication_controller, stateful_set,
};
use migrations_testkit::cluster::{ControlPlane, NODE};
use migrations_testkit::manifests::manifests;
use serde_json::json;

use super::admission;
use super::kinds::{self, ROLLOUT, reference};
use super::shop::{Controller, Shop, until_entry_says};
use super::webhook;

const CONTROLLER: &str = "migrations-controller";

/// The API server asks for these on behalf of a request, and the log tells only of that one.
const UNSEEN: [(&str, &str); 2] = [
    ("create configmaps migrations-ca-bundle", "asked for when an apply makes the object"),
    (
        "update migrators/finalizers.migrations.coderanger.net",
        "asked for when a Job is created whose owner it keeps from being deleted",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_is_refused_nothing_and_uses_each_of_its_rights() {
    let plane = ControlPlane::start_audited().await;
    plane.install_account(CONTROLLER).await;
    kinds::install(plane.client(), CONTROLLER).await;
    admission::install(plane.client(), &plane.namespace().await).await;
    let start = || {
        let client = plane.client_as(names::OPERATOR_NAMESPACE, CONTROLLER);
        Controller::start(client, names::OPERATOR_NAMESPACE, Policy::default())
    };
    let operator = names::OPERATOR_NAMESPACE.to_owned();
    let shop = Shop { operator, namespace: plane.namespace().await, name: "shop" };

    // Certificates are made, bundles and statuses written, owners of every kind read.
    let controller = start();
    shop.namespace.create(&shop.migrator().with(json!({ "spec": { "lock": "database" } }))).await;
    migrate_every_kind(&shop).await;
    lose_a_run(&shop).await;
    end_what_goes_on(&shop).await;
    fail_a_stateful_set(&shop).await;
    refuse_a_run(&shop).await;

    // Another leader finds certificates that it can't use, and configurations to write to.
    controller.stop().await;
    tear_certificates(&plane).await;
    let webhook = webhook::serve(&plane, names::OPERATOR_NAMESPACE).await;
    ship_configurations(&plane).await;
    let controller = start();
    until_entry_says(plane.client(), "shop:v1").await;

    plane.expect_rights_as_used(CONTROLLER, &UNSEEN).await;
    controller.stop().await;
    webhook.request();
}

/// Each with an image of its own, so that each has a run.
async fn migrate_every_kind(shop: &Shop) {
    let never = json!({ "spec": { "restartPolicy": "Never" } });
    let anywhere = json!({ "spec": { "tolerations": [{ "operator": "Exists" }] } });
    let volume = json!({ "name": "media", "persistentVolumeClaim": { "claimName": "media" } });
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": { "name": "media" },
        "spec": { "accessModes": ["ReadWriteMany"], "resources": { "requests": { "storage": "1Gi" } } },
    }))
    .expect("a claim");
    shop.namespace.api().create(&PostParams::default(), &claim).await.expect("a claim");

    let template = |role: &str| shop.template(&format!("{role}:v1")).label("role", role);
    let of_claim =
        shop.template("shop:v1").label("role", "web").with(json!({ "spec": { "volumes": [volume] } }));
    shop.namespace.create(&deployment("web").template(&of_claim)).await;
    shop.migrate("shop:v1").await;
    shop.namespace.create(&daemon_set("agent").template(&template("agent").with(anywhere))).await;
    shop.migrate("agent:v1").await;
    shop.namespace.create(&replication_controller("old").template(&template("old"))).await;
    shop.migrate("old:v1").await;
    shop.namespace.create(&template("bare").namespace(shop.namespace.name())).await;
    shop.migrate("bare:v1").await;
    let nightly = template("nightly").with(never);
    let made_by = shop.namespace.create(&cron_job("nightly").template(&nightly)).await;
    shop.namespace.create(&job("by-hand").template(&nightly).owned_by(&existing(&made_by))).await;
    shop.migrate("nightly:v1").await;
    let canary = deployment("canary").template(&template("canary")).json()["spec"].clone();
    let canary = ROLLOUT.create(shop, "canary", canary, None).await;
    let of_revision = template("canary").label("rollouts-pod-template-hash", "one");
    let owned = json!({ "metadata": { "ownerReferences": [reference(&canary)] } });
    shop.namespace.create(&replica_set("canary-one").template(&of_revision).with(owned)).await;
    let generation = canary.metadata.generation.expect("a generation").to_string();
    let status = json!({ "currentPodHash": "one", "observedGeneration": generation });
    ROLLOUT.patch_status(shop, "canary", status).await;
    shop.migrate("canary:v1").await;
}

/// Its Job and its Pod are deleted, and it is asked for again.
async fn lose_a_run(shop: &Shop) {
    let lost = shop.template("lost:v1").label("role", "lost");
    shop.namespace.create(&deployment("lost").template(&lost)).await;
    let run = shop.run_starts("lost:v1").await;
    let current = shop.status().await.current.expect("a run");
    shop.delete::<Job>(&current.job).await;
    shop.until_pod_ends(&run).await;
    shop.until_reason("ResultUnknown").await;
    let marked = json!({ names::DONE_ANNOTATION: "lost:v1" });
    shop.patch::<Migrator>("shop", json!({ "metadata": { "annotations": marked } })).await;
    shop.until_done("lost:v1").await;
}

/// A container that someone else put beside a migration outlives it.
async fn end_what_goes_on(shop: &Shop) {
    shop.namespace
        .create(&deployment("beside").template(&shop.template("beside:v1").label("role", "beside")))
        .await;
    let run = shop.run_starts("beside:v1").await;
    let first = shop.namespace.api::<Pod>().get(&run).await.expect("the run's Pod");
    let current = shop.status().await.current.expect("a run");
    let current = shop.namespace.api::<Job>().get(&current.job).await.expect("its Job");
    let second = pod("second")
        .with(json!({ "metadata": { "labels": first.metadata.labels } }))
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .container(names::RUN_CONTAINER, "beside:v1")
        .container("proxy", "proxy:v1")
        .owned_by(&existing(&current))
        .on_node(NODE);
    shop.namespace.create(&second).await;
    shop.namespace.start_pod("second").await;
    shop.namespace.end_container("second", names::RUN_CONTAINER, 0, "").await;
    shop.run_ends(&run, 0, "").await;
    shop.until_done("beside:v1").await;
    let ended = |all: &[Pod]| {
        let spec = all.iter().find(|it| it.metadata.name.as_deref() == Some("second"))?.spec.as_ref()?;
        spec.active_deadline_seconds.map(drop)
    };
    shop.namespace.until::<Pod, _>("a Pod whose time is up", ended).await;
    shop.namespace.end_pod("second").await;
}

/// Twice in a row, as a broken release that is followed by another one.
async fn fail_a_stateful_set(shop: &Shop) {
    let template = shop.template("database:v1").label("role", "database");
    shop.namespace.create(&stateful_set("database").template(&template)).await;
    let run = shop.run_starts("database:v1").await;
    shop.run_ends(&run, 1, "no such column").await;
    shop.until_reason("MigrationFailed").await;
    shop.set_image_of::<StatefulSet>("database", "database:v2").await;
    let run = shop.run_starts("database:v2").await;
    shop.run_ends(&run, 1, "no such column").await;
    shop.until_status("both failures", |status| {
        status.history[..2].iter().all(|it| it.result == RunResult::Failed)
    })
    .await;
}

/// Its Pod can't be made, and the Job's events say why.
async fn refuse_a_run(shop: &Shop) {
    shop.patch::<Migrator>("shop", json!({ "spec": { "serviceAccountName": "ddl" } })).await;
    let refused = shop.template("refused:v1").label("role", "refused");
    shop.namespace.create(&deployment("refused").template(&refused)).await;
    shop.until_told(&["serviceaccount \"ddl\" not found"]).await;
}

/// The authority's Secret holds nothing of use, so that both are written anew.
async fn tear_certificates(plane: &ControlPlane) {
    let secrets: Api<Secret> = Api::namespaced(plane.client(), names::OPERATOR_NAMESPACE);
    let mut torn = secrets.get(names::CA_SECRET).await.expect("the controller made it");
    let nothing = ByteString(Vec::new());
    torn.data =
        Some(BTreeMap::from([("ca.crt".to_owned(), nothing.clone()), ("ca.key".to_owned(), nothing)]));
    secrets.replace(names::CA_SECRET, &PostParams::default(), &torn).await.expect("a Secret");
}

/// Not before: without a webhook their entries refuse every Pod that has to wait.
async fn ship_configurations(plane: &ControlPlane) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(plane.client());
    for object in manifests() {
        if object["kind"] == "MutatingWebhookConfiguration" {
            let object = serde_json::from_value(object).expect("a configuration");
            api.create(&PostParams::default(), &object).await.expect("a configuration");
        }
    }
}
