//! What exactly-once depends on is read again before anything is done.

use std::collections::BTreeMap;

use kube::api::PostParams;
use kube::runtime::reflector;
use migrations_api::{Migrator, names};
use migrations_controller::gather::{Gathered, Gatherer, OwnerReader};
use migrations_controller::locks::Locks;
use migrations_controller::watch::Queue;
use migrations_controller::watch::jobs::JobWatch;
use migrations_controller::watch::locks::LockWatch;
use migrations_controller::watch::pods::PodWatches;
use migrations_controller::watch::runs::RunWatch;
use migrations_core::snapshot::{Gate, Owners, PodFacts, Policy, Requests, Snapshot};
use migrations_testkit::builders::{Object, migrator, pod};
use migrations_testkit::cluster::ControlPlane;

fn run_pod(name: &str) -> Object<k8s_openapi::api::core::v1::Pod> {
    pod(name).label(names::RUN_LABEL, "shop").container(names::RUN_CONTAINER, "shop:v1")
}

/// The list shows a Pod that no watch has seen, and lacks one that was deleted meanwhile.
#[tokio::test]
async fn runs_pods_are_listed_and_those_that_went_keep_their_last_state() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let client = namespace.client();
    let shop = migrator("shop").selecting("app", "shop").namespace(namespace.name()).build();
    let shop = namespace.api::<Migrator>().create(&PostParams::default(), &shop).await.expect("a Migrator");
    namespace.create(&run_pod("there")).await;
    let gatherer = Gatherer {
        client: client.clone(),
        pods: PodWatches::new(client.clone(), Queue::new().0, RunWatch::default()),
        jobs: JobWatch::default(),
        owners: OwnerReader::new(client.clone()),
        migrators: reflector::store().0,
        locks: Locks::new(client, namespace.name()),
        lock_watch: LockWatch::default(),
        policy: Policy::default(),
    };
    let went = PodFacts::from(&run_pod("went").finished(0, "").build());
    let before = Snapshot {
        namespace: namespace.name().to_owned(),
        name: "shop".to_owned(),
        uid: shop.metadata.uid.clone().unwrap_or_default(),
        generation: shop.metadata.generation,
        status: shop.status.clone().unwrap_or_default(),
        pods: Vec::new(),
        owners: Owners::new(),
        jobs: Vec::new(),
        run_pods: vec![went.clone()],
        gate: Gate::InPlace,
        create_refused: None,
        pod_refused: None,
        claims: BTreeMap::new(),
        requests: Requests::default(),
        locks: Vec::new(),
        policy: Policy::default(),
    };
    let read =
        gatherer.read_again(Gathered { migrator: shop, snapshot: before }, None).await.expect("an answer");
    let pods = read.expect("the Migrator").snapshot.run_pods;
    let (gone, there): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.gone);
    assert_eq!(there.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["there"]);
    assert_eq!(gone, [PodFacts { gone: true, ..went }]);
}
