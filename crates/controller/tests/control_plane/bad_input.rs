//! What can't be followed is told, and harms nobody else (contract §9).

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use migrations_api::Migrator;
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;

use super::shop::{Shop, until_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_that_cannot_be_followed_is_a_condition_that_names_field_and_fix() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    let migrators: Api<Migrator> = shop.namespace.api();
    let broken = json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator", "metadata": { "name": "shop" },
        "spec": { "selector": {} },
    });
    let broken = serde_json::from_value(broken).expect("a Migrator");
    migrators.create(&PostParams::default(), &broken).await.expect("the schema lets it pass");
    let status = shop.until_reason("InvalidSpec").await;
    let message = &status.conditions[0].message;
    assert!(
        message.contains("spec.selector is empty") && message.contains("at least one label"),
        "{message}"
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_migrator_is_told_and_the_others_go_on() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    // As an older or newer resource definition might let it pass.
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client());
    let lax = json!([{
        "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec",
        "value": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    }]);
    let lax = Patch::Json::<()>(serde_json::from_value(lax).expect("a patch"));
    let name = format!("migrators.{}", migrations_api::names::GROUP);
    definitions.patch(&name, &PatchParams::default(), &lax).await.expect("a definition");

    // Apart, since the test's own watch would stumble over it.
    let elsewhere = plane.namespace().await;
    let broken: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": { "name": "broken", "namespace": elsewhere.name() },
        "spec": { "selector": "app=shop" },
    }))
    .expect("an object");
    let resource = kube::api::ApiResource::erase::<Migrator>(&());
    let any = Api::<DynamicObject>::namespaced_with(plane.client(), elsewhere.name(), &resource);
    // The API server takes up the changed definition a moment later.
    let mut attempts = 0;
    while any.create(&PostParams::default(), &broken).await.is_err() {
        attempts += 1;
        assert!(attempts < 100, "never accepted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    let told = |all: &[Event]| {
        let of_broken =
            |it: &&Event| it.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some("broken");
        all.iter().find(of_broken).and_then(|it| it.note.clone())
    };
    let note = elsewhere.until::<Event, _>("an event", told).await;
    assert!(note.contains("app=shop") && note.contains("LabelSelector"), "{note}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_resource_definition_it_waits_and_is_not_ready() {
    let plane = ControlPlane::start_without_crds().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    // By now it has tried: the watch of Jobs began at the same time.
    let [_, migrators, jobs, gate] = migrations_controller::PARTS;
    while controller.readiness.missing().any(|part| part == jobs) {
        tokio::task::yield_now().await;
    }
    assert_eq!(controller.readiness.missing().collect::<Vec<_>>(), [migrators, gate]);
    plane.install_crds().await;
    until_ready(&controller.readiness).await;
    shop.create_migrator().await;
    let status = shop.until_reason("Idle").await;
    assert!(status.observed_generation.is_some());
    controller.stop().await;
}
