//! What the controller holds and writes under load, measured on the process itself:
//!
//! ```sh
//! cargo bench -p migrations-controller --features control-plane --bench load \
//!     --target x86_64-unknown-linux-musl [-- PODS MIGRATORS]
//! ```
//!
//! It starts a control plane of its own, fills it with PODS Pods that no Migrator selects, then
//! with MIGRATORS Migrators, and prints a table of each. docs/performance.md says what it gave.
#![allow(clippy::unwrap_used, reason = "a measurement ends with a panic")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "load/controller.rs"]
mod controller;
#[path = "load/crowd.rs"]
mod crowd;
#[allow(clippy::expect_used, reason = "of tests")]
#[path = "../tests/control_plane/webhook.rs"]
mod webhook;
#[path = "load/writes.rs"]
mod writes;

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use migrations_api::conditions::READY;
use migrations_api::{Migrator, names};
use migrations_testkit::builders::{migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace};
use serde_json::json;

use controller::Controller;

/// How long it may take until all Migrators are in place.
const IN_PLACE: Duration = Duration::from_mins(5);

/// How long nothing may be written at rest.
const REST: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let pods = numbers.first().copied().unwrap_or(50_000);
    let migrators = numbers.get(1).copied().unwrap_or(1_000);

    let mut steps = vec![0, pods / 10, pods * 2 / 5, pods];
    steps.dedup();
    unrelated_pods(&steps).await;
    println!("\n| Migrators | in namespaces | in place after | RSS | peak | writes in {REST:?} |");
    println!("|---|---|---|---|---|---|");
    many_migrators(migrators, migrators).await;
    many_migrators(migrators, 1).await;
}

/// The controller beside more and more Pods that no Migrator selects.
async fn unrelated_pods(steps: &[usize]) {
    let plane = open().await;
    let namespace = plane.namespace().await;
    namespace.create(&migrator("shop").selecting("app", "shop")).await;
    println!("each unrelated Pod is {} bytes of JSON", crowd::size(&namespace).await);
    println!("| unrelated Pods | RSS once they came | RSS after a start | peak | new Pod to Job |");
    println!("|---|---|---|---|---|");
    let mut controller = Controller::start(&plane).await;
    let mut there = 0;
    for &wanted in steps {
        crowd::grow(&namespace, there..wanted).await;
        there = wanted;
        controller.settle().await;
        let came = controller.memory();
        drop(controller);
        controller = Controller::start(&plane).await;
        until_in_place(&plane.client(), 1).await;
        controller.settle().await;
        let (started, took) = (controller.memory(), new_pod_to_job(&namespace, wanted).await);
        println!("| {there} | {} | {} | {} | {took:?} |", came.now, started.now, started.peak);
    }
}

/// The controller at rest beside many Migrators that select nothing.
async fn many_migrators(migrators: usize, namespaces: usize) {
    let plane = open().await;
    crowd::migrators(&plane.client(), migrators, namespaces).await;
    let begin = Instant::now();
    let controller = Controller::start(&plane).await;
    until_in_place(&plane.client(), migrators).await;
    let took = begin.elapsed();
    controller.settle().await;
    let before = writes::versions(&plane.client()).await;
    tokio::time::sleep(REST).await;
    let written = writes::between(&before, &writes::versions(&plane.client()).await);
    let memory = controller.memory();
    println!("| {migrators} | {namespaces} | {took:.1?} | {} | {} | {written} |", memory.now, memory.peak);
}

/// A control plane as the manifests leave it.
async fn open() -> ControlPlane {
    let plane = ControlPlane::start().await;
    let operator = serde_json::from_value(json!({ "metadata": { "name": names::OPERATOR_NAMESPACE } }));
    Api::<Namespace>::all(plane.client()).create(&PostParams::default(), &operator.unwrap()).await.unwrap();
    writes::ship_configurations(&plane.client()).await;
    webhook::serve(&plane, names::OPERATOR_NAMESPACE).await;
    plane
}

/// Waits until that many Migrators are ready, their webhook entries in place.
async fn until_in_place(client: &Client, count: usize) {
    let ready = |it: &&Migrator| {
        let conditions = it.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|it| it.type_ == READY && it.status == "True")
    };
    let migrators = Api::<Migrator>::all(client.clone());
    let deadline = Instant::now() + IN_PLACE;
    while migrators.list(&ListParams::default()).await.unwrap().iter().filter(ready).count() < count {
        assert!(Instant::now() < deadline, "not in place after {IN_PLACE:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How long from a new Pod that a Migrator selects to the Job of its run.
async fn new_pod_to_job(namespace: &TestNamespace, step: usize) -> Duration {
    let name = format!("probe-{step}");
    namespace.create(&migrator(&name).selecting("app", &name).command(["migrate"])).await;
    until_in_place(&namespace.client(), 2).await;
    let web = pod(&name)
        .label("app", &name)
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .container("app", "shop:v1");
    let begin = Instant::now();
    namespace.create(&web).await;
    let of_it = |jobs: &[Job]| {
        let label = |job: &Job| job.metadata.labels.as_ref()?.get(names::RUN_LABEL).cloned();
        jobs.iter().any(|job| label(job).as_deref() == Some(&name)).then_some(())
    };
    namespace.until::<Job, _>("the run's Job", of_it).await;
    let took = begin.elapsed();
    namespace.api::<Migrator>().delete(&name, &DeleteParams::default()).await.unwrap();
    took
}
