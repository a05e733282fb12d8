//! The control plane does what tests of the operator rely on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::Migrator;
use migrations_testkit::builders::{deployment, existing, job, migrator, pod};
use migrations_testkit::cluster::ControlPlane;
use migrations_testkit::manifests::sample;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_job_completes_when_the_test_ends_its_container() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let template = pod("")
        .label("app", "run")
        .container("migrations", "shop:v1")
        .with(json!({ "spec": { "restartPolicy": "Never" } }));
    namespace.create(&job("run").template(&template)).await;

    let pod = namespace.until("the Job's Pod", |pods: &[Pod]| pods.first().map(ResourceExt::name_any)).await;
    namespace.start_pod(&pod).await;
    let ended = namespace.end_container(&pod, "migrations", 0, "all done").await;
    assert_eq!(ended.status.unwrap().phase.unwrap(), "Succeeded");
    namespace
        .until("the Job to be complete", |jobs: &[Job]| {
            jobs.iter()
                .find(|job| job.status.as_ref().is_some_and(|status| status.completion_time.is_some()))
                .map(drop)
        })
        .await;
}

#[tokio::test]
async fn a_deployment_gets_pods_and_becomes_available_when_they_are_started() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let template = pod("").label("app", "web").container("app", "shop:v1");
    namespace.create(&deployment("web").template(&template)).await;
    let pod = namespace.until("a Pod", |pods: &[Pod]| pods.first().map(ResourceExt::name_any)).await;
    namespace.initialize_pod(&pod).await;
    namespace.start_pod(&pod).await;
    namespace
        .until("the Deployment to be available", |items: &[Deployment]| {
            items
                .iter()
                .find(|item| item.status.as_ref().is_some_and(|status| status.available_replicas == Some(1)))
                .map(drop)
        })
        .await;
}

#[tokio::test]
async fn what_a_deleted_owner_leaves_is_collected() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let owner = namespace.create(&migrator("shop").selecting("app", "web")).await;
    namespace.create(&pod("web").owned_by(&existing(&owner)).container("app", "shop:v1")).await;
    namespace.api::<Migrator>().delete("shop", &DeleteParams::default()).await.unwrap();
    namespace.until("the Pod to be gone", |pods: &[Pod]| pods.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_bound_pod_stays_until_the_test_ends_it() {
    let namespace = ControlPlane::shared().await.namespace().await;
    namespace.create(&pod("web").container("app", "shop:v1")).await;
    namespace.start_pod("web").await;
    namespace.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
    let deleting = namespace.api::<Pod>().get("web").await.unwrap();
    assert!(deleting.metadata.deletion_timestamp.is_some());
    namespace.end_pod("web").await;
    namespace.until("the Pod to be gone", |pods: &[Pod]| pods.is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_api_server_reaches_a_webhook_on_loopback_through_its_service() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    plane.expose(namespace.name(), "hook", 443, listener.local_addr().unwrap().port()).await;
    let hook: MutatingWebhookConfiguration = serde_json::from_value(json!({
        "metadata": { "name": "reached" },
        "webhooks": [{
            "name": "reached.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": { "service": { "namespace": namespace.name(), "name": "hook" } },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace.name() } },
        }],
    }))
    .unwrap();
    Api::all(namespace.client()).create(&PostParams::default(), &hook).await.unwrap();
    // The API server takes a moment to learn of the configuration; until then Pods just pass.
    let knocking = async {
        for attempt in 0..10_000 {
            let pod = pod(&format!("web-{attempt}")).container("app", "shop:v1").build();
            let pod = Pod { metadata: ObjectMeta { namespace: None, ..pod.metadata }, ..pod };
            let _ = namespace.api::<Pod>().create(&PostParams::default(), &pod).await;
        }
    };
    tokio::select! {
        accepted = listener.accept() => drop(accepted.unwrap()),
        () = knocking => panic!("the API server never connects:\n{}", plane.last_output()),
    }
}

async fn apply(client: &Client, object: &Value) -> DynamicObject {
    let (group, version) = object["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
    let kind = object["kind"].as_str().unwrap();
    let kind = kube::core::GroupVersionKind::gvk(group, version, kind);
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await.unwrap();
    let api = api(client, &resource, object["metadata"]["namespace"].as_str());
    let params = PatchParams::apply("kubectl").validation_strict();
    let name = object["metadata"]["name"].as_str().unwrap();
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    applied.unwrap_or_else(|error| panic!("{} {name}: {error}", kind.kind))
}

fn api(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

#[tokio::test]
async fn the_sample_for_application_namespaces_is_taken() {
    let namespace = ControlPlane::shared().await.namespace().await;
    for mut policy in sample("network-policy.yaml") {
        policy["metadata"]["namespace"] = json!(namespace.name());
        let applied = apply(&namespace.client(), &policy).await;
        assert_eq!(applied.metadata.namespace.as_deref(), Some(namespace.name()));
    }
}
