//! What users see of a Migrator, and what they don't (contract §6); at rest nothing is written (L2).

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::snapshot::Policy;
use migrations_testkit::builders::{deployment, migrator, pod};
use migrations_testkit::cluster::{ControlPlane, until};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::shop::Shop;

/// A program's last words, longer than an event may be.
fn traceback() -> String {
    format!("Traceback\n{}ValueError: password hunter2 is wrong", "  File \"migrate.py\"\n".repeat(60))
}

/// The columns of `kubectl get migrators`, each with what it shows of the shop's.
async fn columns(shop: &Shop) -> Vec<(String, String)> {
    let path = format!("/apis/{}/v1beta1/namespaces/{}/migrators", names::GROUP, shop.namespace.name());
    let request = http::Request::get(path)
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .expect("a request");
    let table: Value = shop.namespace.client().request(request).await.expect("a table");
    let headers = table["columnDefinitions"].as_array().expect("columns");
    let cells = table["rows"][0]["cells"].as_array().expect("a row");
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    headers.iter().map(|it| text(&it["name"]).to_uppercase()).zip(cells.iter().map(text)).collect()
}

/// What a list shows beside the name and times.
async fn shown(shop: &Shop) -> [String; 4] {
    let columns = columns(shop).await;
    ["READY", "STATUS", "IMAGE", "WAITING"].map(|name| {
        let column = columns.iter().find(|(header, _)| header == name);
        column.map(|(_, cell)| cell.clone()).expect("such a column")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_where_a_migrator_stands() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let headers: Vec<_> = columns(&shop).await.into_iter().map(|(header, _)| header).collect();
    assert_eq!(headers, ["NAME", "READY", "STATUS", "IMAGE", "WAITING", "LAST RUN", "AGE"]);

    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.until_reason("Running").await;
    assert_eq!(shown(&shop).await, ["False", "Running", "null", "1"]);
    shop.run_ends(&run, 0, "").await;
    shop.until_reason("GatePending").await;
    assert_eq!(shown(&shop).await, ["False", "GatePending", "shop:v1", "0"]);

    shop.pods_start("shop:v1").await;
    shop.set_image("shop:v2").await;
    let run = shop.run_starts("shop:v2").await;
    shop.run_ends(&run, 3, &traceback()).await;
    shop.until_reason("MigrationFailed").await;
    assert_eq!(shown(&shop).await, ["False", "MigrationFailed", "shop:v1", "1"]);
    let last_run = columns(&shop).await.into_iter().find(|(header, _)| header == "LAST RUN");
    assert_ne!(last_run.map(|(_, cell)| cell).as_deref(), Some("null"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_where_users_look() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    let run = shop.run_starts("shop:v1").await;
    shop.run_ends(&run, 3, &traceback()).await;
    let status = shop.until_reason("MigrationFailed").await;
    let record = &status.history[0];
    assert!(record.message.starts_with("exit code 3: ValueError: password hunter2 is wrong\n"));
    assert!(record.message.contains(&traceback()), "the whole of it");
    assert_eq!(
        (record.attempts, &record.job),
        (1, &run.rsplit_once('-').expect("a Pod of a Job").0.to_owned())
    );
    assert!(status.conditions.iter().all(|it| it.message.contains("ValueError")));
    for kind in ["Migrator", "Deployment"] {
        let told = |all: &[Event]| {
            let event = all.iter().find(|it| {
                it.regarding.as_ref().and_then(|it| it.kind.as_deref()) == Some(kind)
                    && it.reason.as_deref() == Some("MigrationFailed")
            })?;
            event.note.clone()
        };
        let note = shop.namespace.until::<Event, _>("the failure's event", told).await;
        assert!(note.contains("shop:v1 failed") && note.contains("ValueError"), "{note}");
        assert!(note.len() <= 1024);
    }
}

/// A traceback may hold secrets.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_output_is_neither_in_the_status_nor_in_events() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller_with(Policy { hide_output: true, ..Policy::default() });
    shop.create_migrator().await;
    shop.deploy("shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    shop.run_ends(&run, 3, &traceback()).await;
    let status = shop.until_reason("MigrationFailed").await;
    assert!(status.conditions[0].message.contains("exit code 3"), "{}", status.conditions[0].message);
    shop.until_event("MigrationFailed", "exit code 3").await;
    let events = objects::<Event>(&shop.namespace.api(), &ListParams::default()).await;
    let all = serde_json::to_string(&(status, events)).expect("JSON");
    assert!(!all.contains("hunter2"), "{all}");
    controller.stop().await;
}

async fn objects<K>(api: &Api<K>, which: &ListParams) -> Vec<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.list(which).await.expect("a list").items
}

async fn versions<K>(api: Api<K>, which: &ListParams) -> Vec<(String, Option<String>)>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    objects(&api, which).await.iter().map(|it| (it.name_any(), it.resource_version())).collect()
}

/// Name and version of everything that the operator might write.
async fn written(shop: &Shop) -> Vec<(String, Option<String>)> {
    let (all_of_it, of_runs) = (ListParams::default(), ListParams::default().labels(names::RUN_LABEL));
    let mut all = versions::<Migrator>(shop.namespace.api(), &all_of_it).await;
    all.extend(versions::<Job>(shop.namespace.api(), &of_runs).await);
    all.extend(versions::<Pod>(shop.namespace.api(), &of_runs).await);
    all.extend(versions::<ConfigMap>(shop.namespace.api(), &all_of_it).await);
    let ours = ListParams::default().fields("reportingController=migrations-controller");
    all.extend(versions::<Event>(shop.namespace.api(), &ours).await);
    all.extend(versions::<MutatingWebhookConfiguration>(Api::all(shop.namespace.client()), &all_of_it).await);
    all
}

/// How many times a Migrator's status was sent, be it the one that was there already.
async fn statuses_sent(plane: &ControlPlane) -> f64 {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let metrics = plane.client().request_text(request).await.expect("metrics");
    let of_status = |line: &&str| {
        let labels = [r#"resource="migrators""#, r#"subresource="status""#, r#"verb="PUT""#];
        line.starts_with("apiserver_request_total{") && labels.iter().all(|label| line.contains(label))
    };
    let counts =
        metrics.lines().filter(of_status).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum()
}

/// With a Pod that needs no webhook, which isn't there.
async fn deploy_one(shop: &Shop, name: &str, image: &str) {
    let template = shop.template(image).annotation(names::NO_WAIT_ANNOTATION, "true");
    shop.namespace.create(&deployment(name).template(&template)).await;
}

/// The controller has looked at everything that happened so far: at a new Migrator as well, which needs
/// no webhook entry.
async fn until_looked_at(plane: &ControlPlane) {
    let elsewhere = plane.namespace().await;
    let open = migrator("open").selecting("app", "open").annotation(names::OPEN_ANNOTATION, "true");
    elsewhere.create(&open).await;
    let seen = |all: &[Migrator]| all.iter().find(|it| it.status.is_some()).map(drop);
    elsewhere.until::<Migrator, _>("a look", seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_written_and_scaling_to_zero_leaves_it_ready() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    // One whose last migration failed, and one that is well and used a lock.
    let stock = shop.neighbour("stock");
    stock.create_migrator().await;
    deploy_one(&stock, "stock", "stock:v1").await;
    let run = stock.run_starts("stock:v1").await;
    stock.run_ends(&run, 1, "no").await;
    stock.until_reason("MigrationFailed").await;
    shop.namespace.create(&shop.migrator().with(json!({ "spec": { "lock": "database" } }))).await;
    deploy_one(&shop, "web", "shop:v1").await;
    shop.migrate("shop:v1").await;
    let web = shop.pods_start("shop:v1").await.remove(0);
    let before = shop.until_reason("UpToDate").await;
    let leases = Api::<Lease>::namespaced(plane.client(), &shop.operator);
    let free =
        |all: &[Lease]| (!all.iter().any(|it| it.labels().contains_key(names::LOCK_LABEL))).then_some(());
    until(&leases, "the lock to be given back", free).await;
    // Kubernetes has written its part as well.
    let ended = |all: &[Job]| {
        let ended = |job: &Job| {
            let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref());
            conditions.unwrap_or_default().iter().any(|it| matches!(it.type_.as_str(), "Complete" | "Failed"))
        };
        all.iter().all(ended).then_some(())
    };
    shop.namespace.until::<Job, _>("both Jobs' ends", ended).await;
    until_looked_at(&plane).await;

    let at_rest = written(&shop).await;
    for look in 0..5 {
        // Of Pods that are selected, and of one that isn't: all of them matter to nobody.
        let stock = stock.until_pods("stock:v1").await.remove(0);
        for pod in [&web, &stock] {
            shop.patch::<Pod>(pod, json!({ "metadata": { "labels": { "look": look.to_string() } } })).await;
        }
        let stranger = pod(&format!("stranger-{look}")).label("app", "other").container("app", "other:v1");
        shop.namespace.create(&stranger).await;
    }
    until_looked_at(&plane).await;
    assert_eq!(written(&shop).await, at_rest);

    let sent = statuses_sent(&plane).await;
    for look in 5..10 {
        shop.patch::<Pod>(&web, json!({ "metadata": { "labels": { "look": look.to_string() } } })).await;
    }
    shop.patch::<Deployment>("web", json!({ "spec": { "replicas": 0 } })).await;
    shop.until_pod_ends(&web).await;
    let status = shop.until_reason("Idle").await;
    assert!((statuses_sent(&plane).await - sent - 1.0).abs() < 0.5, "only that there is no Pod any more");
    assert_eq!(status.done, before.done);
    assert_eq!(status.conditions[0].status, "True");
    assert_eq!(status.conditions[0].last_transition_time, before.conditions[0].last_transition_time);
    controller.stop().await;
}
