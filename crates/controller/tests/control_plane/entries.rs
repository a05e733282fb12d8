//! The webhook entries in the configurations that the manifests ship (contract §7): when they are
//! written, what stays in them, and what one that is refused costs.

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::conditions::STALLED;
use migrations_api::{DoneKey, How, Migrator, MigratorStatus, names};
use migrations_core::snapshot::Policy;
use migrations_testkit::builders::migrator;
use migrations_testkit::cluster::{ControlPlane, until};
use serde_json::json;

use super::shop::{Controller, Shop, configuration_versions, configurations, until_entry_says, until_ready};
use super::webhook;

/// The controller's service account in the manifests.
const CONTROLLER: &str = "migrations-controller";

/// All entries but the probe's, with the names of their configurations.
async fn entries(client: Client) -> Vec<(String, MutatingWebhook)> {
    let of = |it: MutatingWebhookConfiguration| {
        let name = it.name_any();
        it.webhooks.into_iter().flatten().map(move |entry| (name.clone(), entry))
    };
    let all = configurations(client).await.into_iter().flat_map(of);
    all.filter(|(name, _)| name != names::PROBE_CONFIGURATION).collect()
}

/// The entries of Migrators.
async fn of_migrators(client: Client) -> Vec<(String, MutatingWebhook)> {
    let all = entries(client).await;
    all.into_iter().filter(|(name, _)| name != names::REQUIRED_CONFIGURATION).collect()
}

fn path_of(entry: &MutatingWebhook) -> &str {
    entry.client_config.service.as_ref().and_then(|service| service.path.as_deref()).unwrap_or_default()
}

/// Waits until as many entries of Migrators are as asked for.
async fn until_entries(
    client: Client,
    what: &str,
    count: usize,
    as_asked: impl Fn(&MutatingWebhook) -> bool,
) {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    let found = |all: &[MutatingWebhookConfiguration]| {
        let entries = all.iter().flat_map(|it| it.webhooks.iter().flatten());
        (entries.filter(|entry| as_asked(entry)).count() == count).then_some(())
    };
    until(&api, what, found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entry_is_written_before_the_webhook_is_reached() {
    let plane = ControlPlane::start().await;
    // With the shipped rights: nobody else may create the probe, say.
    plane.install_account(CONTROLLER).await;
    let operator = names::OPERATOR_NAMESPACE.to_owned();
    let shop = Shop { operator, ..Shop::open_without_webhook(&plane).await };
    let client = plane.client_as(&shop.operator, CONTROLLER);
    let controller = Controller::start(client, &shop.operator, Policy::default());
    shop.create_migrator().await;
    let status = shop.until_reason("WebhookUnreachable").await;
    let message = &status.conditions.iter().find(|it| it.type_ == "Ready").unwrap().message;
    for part in ["port 443", "hostNetwork", "failed calling webhook"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(controller.readiness.missing().next().is_some());
    assert!(entries(plane.client()).await.is_empty());

    webhook::serve(&plane, &shop.operator).await;
    shop.until_reason("Idle").await;
    assert_eq!(entries(plane.client()).await.len(), 2);
    until_ready(&controller.readiness).await;
}

/// What is in place holds Pods that wait; that the way is closed for a moment is no reason to let them
/// go.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_closed_later_takes_no_entry_away() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open_without_webhook(&plane).await;
    let webhook = webhook::serve(&plane, &shop.operator).await;
    let controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    controller.stop().await;
    let before = configuration_versions(plane.client()).await;
    webhook.request();

    let _controller = shop.controller();
    let late = Shop { name: "late", ..shop.clone() };
    late.create_migrator().await;
    late.until_reason("WebhookUnreachable").await;
    shop.until_reason("WebhookUnreachable").await;
    assert_eq!(configuration_versions(plane.client()).await, before);

    shop.delete::<Migrator>("shop").await;
    until_entries(plane.client(), "the entry to go with its Migrator", 0, |it| path_of(it).contains('.'))
        .await;
}

/// The API server compiles expressions; one this long it refuses.
#[tokio::test(flavor = "multi_thread")]
async fn one_refused_entry_leaves_the_others_alone() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    // The refused one has neighbours in its configuration, by numbers.
    let apps: Vec<_> = (0..40).map(|index| format!("app-{index}")).collect();
    for app in &apps {
        shop.namespace.create(&migrator(app).selecting("app", app)).await;
    }
    let done = DoneKey::new("shop:v1".to_owned(), "shop:v1".to_owned(), How::Succeeded);
    let status = MigratorStatus { done: vec![done], ..MigratorStatus::default() };
    let long = json!({ "spec": { "container": "x".repeat(110_000) }, "status": status });
    shop.namespace.create(&shop.migrator().with(long)).await;
    let controller = shop.controller();

    let status = shop.until_reason("EntryRefused").await;
    let stalled = status.conditions.iter().find(|it| it.type_ == STALLED).unwrap();
    assert!(stalled.message.contains("webhooks[") && stalled.message.contains("expression"), "{stalled:?}");
    let idle = |all: &[Migrator]| {
        let ready = |it: &&Migrator| {
            let conditions = it.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
        };
        (all.iter().filter(ready).count() == apps.len()).then_some(())
    };
    shop.namespace.until::<Migrator, _>("the others to be ready", idle).await;
    assert_eq!(of_migrators(plane.client()).await.len(), apps.len());
    until_ready(&controller.readiness).await;

    // Mended.
    shop.patch::<Migrator>("shop", json!({ "spec": { "container": "app" } })).await;
    shop.until_reason("Idle").await;
    assert_eq!(of_migrators(plane.client()).await.len(), apps.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_selectors_share_an_entry_that_follows_them() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let _controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    let twin = shop.neighbour("twin");
    shop.namespace.create(&migrator("twin").selecting("app", "shop")).await;
    twin.until_reason("Idle").await;
    let shared = of_migrators(plane.client()).await;
    assert_eq!(shared.len(), 1);
    assert_eq!(path_of(&shared[0].1).split('/').count(), 4, "{:?}", path_of(&shared[0].1));

    // The last one keeps it, be it named by another or not.
    let api: Api<Migrator> = shop.namespace.api();
    let uids = [api.get("shop").await.unwrap().uid().unwrap(), api.get("twin").await.unwrap().uid().unwrap()];
    let (first, other) = if uids[0] < uids[1] { ("shop", &uids[1]) } else { ("twin", &uids[0]) };
    shop.delete::<Migrator>(first).await;
    until_entries(plane.client(), "the other's entry", 1, |it| it.name.starts_with(other.as_str())).await;
    let left = of_migrators(plane.client()).await;
    assert_eq!((left.len(), &left[0].0), (1, &shared[0].0));
}

/// To another configuration, at some point: its Pods are held all the while.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_moves_with_its_selector() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let _controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    for app in ["one", "two", "three"] {
        let selector = json!({ "spec": { "selector": { "matchLabels": { "app": app } } } });
        shop.patch::<Migrator>("shop", selector).await;
        until_entry_says(plane.client(), &format!(r#""matchLabels":{{"app":"{app}"}}"#)).await;
        until_entries(plane.client(), "one entry", 1, |it| path_of(it).contains('.')).await;
    }
    shop.until_reason("Idle").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_platform_excludes_stays_when_an_entry_is_written() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let _controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;

    let (name, entry) = of_migrators(plane.client()).await.remove(0);
    let mut entry = serde_json::to_value(entry).unwrap();
    entry["namespaceSelector"]["matchExpressions"] =
        json!([{ "key": "control-plane", "operator": "DoesNotExist" }]);
    let configurations = Api::<MutatingWebhookConfiguration>::all(plane.client());
    let patch = Patch::Merge(json!({ "webhooks": [entry] }));
    configurations.patch(&name, &PatchParams::default(), &patch).await.unwrap();

    shop.patch::<Migrator>(
        "shop",
        json!({ "metadata": { "annotations": {
        (names::DONE_ANNOTATION): "shop:v1",
    } } }),
    )
    .await;
    until_entry_says(plane.client(), r#"in [\"shop:v1\"]"#).await;
    let (_, written) = of_migrators(plane.client()).await.remove(0);
    let expressions = written.namespace_selector.and_then(|it| it.match_expressions).unwrap();
    assert_eq!(expressions[0].key, "control-plane");
}

/// As `kubectl delete -k` does, before it comes to the controller.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_configurations_are_not_brought_back_and_migrations_go_on() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let _controller = shop.controller();
    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    let api = Api::<MutatingWebhookConfiguration>::all(plane.client());
    for configuration in configurations(plane.client()).await {
        api.delete(&configuration.name_any(), &DeleteParams::default()).await.unwrap();
    }

    let late = shop.neighbour("late");
    late.create_migrator().await;
    late.until_status("what is missing", |status| {
        let told = |it: &str| it.contains("Configuration zz-migrations-") && it.contains("doesn't exist");
        status.conditions.iter().any(|it| it.reason == "GatePending" && told(&it.message))
    })
    .await;
    shop.deploy("shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
    shop.until_done("shop:v1").await;
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
}
