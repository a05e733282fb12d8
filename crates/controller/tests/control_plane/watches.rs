//! What arrives from the API server: of Pods those that a Migrator selects, and who is told.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_controller::watch::labels::RunLabels;
use migrations_controller::watch::pods::{PodWatches, Seen};
use migrations_controller::watch::runs::RunWatch;
use migrations_controller::watch::{Guarded, Queue};
use migrations_core::selector::Selector;
use migrations_core::snapshot::{ContainerState, PodFacts};
use migrations_testkit::builders::{Object, migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

/// The watches of one namespace, without a controller behind them.
struct Watches {
    namespace: TestNamespace,
    pods: PodWatches,
    runs: RunWatch,
    told: UnboundedReceiver<ObjectRef<Guarded>>,
    following_runs: JoinHandle<()>,
}

impl Watches {
    /// Follows these Migrators.
    async fn of(migrators: &[&Object<Migrator>]) -> Self {
        let namespace = ControlPlane::shared().await.namespace().await;
        let (queue, told) = Queue::new();
        let (runs, labels) = (RunWatch::default(), RunLabels::default());
        // Before the list of runs' Pods is read: it is what tells Migrators that it is there.
        for migrator in migrators {
            labels.add(namespace.name(), &migrator.build().name_any());
        }
        let pods = PodWatches::new(namespace.client(), queue.clone(), runs.clone());
        let following_runs = tokio::spawn(runs.clone().run(namespace.client(), labels, queue));
        let mut watches = Self { namespace, pods, runs, told, following_runs };
        for migrator in migrators {
            watches.follow(migrator).await;
        }
        watches
    }

    async fn follow(&mut self, migrator: &Object<Migrator>) {
        let migrator = migrator.build();
        self.pods.follow(self.namespace.name(), &migrator.name_any(), Some(&migrator));
        self.until(&migrator, |_| Some(())).await;
    }

    fn seen(&self, migrator: &Migrator) -> Option<Seen> {
        let selector = Selector::parse(&migrator.spec.selector).expect("a selector");
        self.pods.of(self.namespace.name(), &migrator.name_any(), &selector)
    }

    /// Looks each time that the Migrator is told, as the controller does.
    async fn until<T>(&mut self, migrator: &Migrator, found: impl Fn(Seen) -> Option<T>) -> T {
        loop {
            if let Some(found) = self.seen(migrator).and_then(&found) {
                return found;
            }
            let told = tokio::time::timeout(Duration::from_mins(1), self.told.recv()).await;
            told.expect("a change that was waited for").expect("the watches go on");
        }
    }

    /// Waits until these Pods are all that the Migrator selects.
    async fn until_selected(&mut self, migrator: &Object<Migrator>, names: &[&str]) {
        let wanted: BTreeSet<_> = names.iter().map(ToString::to_string).collect();
        let as_wanted = |seen: Seen| {
            let names: BTreeSet<_> = seen.matching.into_iter().map(|pod| pod.name).collect();
            (names == wanted).then_some(())
        };
        self.until(&migrator.build(), as_wanted).await;
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.following_runs.abort();
    }
}

fn labelled(name: &str, label: &str) -> Object<Pod> {
    pod(name).label("app", label).container("app", "shop:v1")
}

#[tokio::test]
async fn a_pod_is_told_to_the_migrators_that_select_it_and_to_no_other() {
    let (shop, blog) = (migrator("shop").selecting("app", "shop"), migrator("blog").selecting("app", "blog"));
    let mut watches = Watches::of(&[&shop, &blog]).await;
    watches.namespace.create(&labelled("unrelated", "other")).await;
    watches.namespace.create(&labelled("blog", "blog")).await;
    watches.until_selected(&blog, &["blog"]).await;
    while watches.told.try_recv().is_ok() {}

    watches.namespace.create(&labelled("shop", "shop")).await;
    let mut told = BTreeSet::new();
    while watches.seen(&shop.build()).expect("listed").matching.is_empty() {
        told.insert(watches.told.recv().await.expect("the watches go on").name);
    }
    while let Ok(migrator) = watches.told.try_recv() {
        told.insert(migrator.name);
    }
    assert_eq!(told, BTreeSet::from(["shop".to_owned()]));
}

#[tokio::test]
async fn migrators_with_the_same_selector_see_the_same_pods() {
    let (one, two) = (migrator("one").selecting("app", "shop"), migrator("two").selecting("app", "shop"));
    let mut watches = Watches::of(&[&one]).await;
    watches.namespace.create(&labelled("web", "shop")).await;
    watches.until_selected(&one, &["web"]).await;
    // Its watch is there already, so nothing has to come for it.
    watches.follow(&two).await;
    watches.until_selected(&two, &["web"]).await;
    watches.pods.forget(watches.namespace.name(), "one");
    assert!(watches.seen(&one.build()).is_none());
    watches.namespace.create(&labelled("web-2", "shop")).await;
    watches.until_selected(&two, &["web", "web-2"]).await;
}

#[tokio::test]
async fn another_selector_is_followed_anew() {
    let mut watches = Watches::of(&[&migrator("shop").selecting("app", "shop")]).await;
    watches.namespace.create(&labelled("web", "shop")).await;
    watches.namespace.create(&labelled("other", "other")).await;
    watches.until_selected(&migrator("shop").selecting("app", "shop"), &["web"]).await;
    let changed = migrator("shop").selecting("app", "other");
    assert!(watches.seen(&changed.build()).is_none(), "what was seen for another selector says nothing");
    watches.follow(&changed).await;
    watches.until_selected(&changed, &["other"]).await;
}

#[tokio::test]
async fn a_pod_that_loses_the_label_or_goes_is_no_longer_seen() {
    let shop = migrator("shop").selecting("app", "shop");
    let mut watches = Watches::of(&[&shop]).await;
    for name in ["a", "b", "c"] {
        watches.namespace.create(&labelled(name, "shop")).await;
    }
    watches.until_selected(&shop, &["a", "b", "c"]).await;
    let pods: Api<Pod> = watches.namespace.api();
    let other = kube::api::Patch::Merge(json!({ "metadata": { "labels": { "app": "other" } } }));
    pods.patch("a", &kube::api::PatchParams::default(), &other).await.expect("a Pod");
    pods.delete("b", &DeleteParams::default().grace_period(0)).await.expect("a Pod");
    watches.until_selected(&shop, &["c"]).await;
}

/// The API server is asked in words: they must mean what the selector means here.
#[rstest]
#[case::labels(json!({ "matchLabels": { "app": "shop", "tier": "web" } }))]
#[case::is_in(json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["shop", "blog"] }] }))]
#[case::is_not_in(json!({ "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["web", ""] }] }))]
#[case::exists(json!({ "matchExpressions": [{ "key": "tier", "operator": "Exists" }] }))]
#[case::is_absent(json!({ "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] }))]
#[case::empty_value(json!({ "matchLabels": { "tier": "" } }))]
#[case::all(json!({
    "matchLabels": { "app": "shop" },
    "matchExpressions": [
        { "key": "tier", "operator": "In", "values": ["web", "worker"] },
        { "key": "tier", "operator": "NotIn", "values": ["worker"] },
        { "key": "example.com/x", "operator": "DoesNotExist" },
    ],
}))]
#[tokio::test]
async fn the_api_server_selects_what_the_selector_means(#[case] selector: Value) {
    let shop = migrator("shop").with(json!({ "spec": { "selector": selector } }));
    let mut watches = Watches::of(&[&shop]).await;
    let pods = [
        labelled("plain", "shop"),
        labelled("web", "shop").label("tier", "web"),
        labelled("worker", "shop").label("tier", "worker"),
        labelled("empty", "shop").label("tier", ""),
        labelled("blog", "blog").label("tier", "web"),
        labelled("other", "other").label("example.com/x", "y"),
    ];
    let meant = Selector::parse(&shop.build().spec.selector).expect("a selector");
    let mut wanted = Vec::new();
    for pod in &pods {
        let created = watches.namespace.create(pod).await;
        if meant.matches(created.labels()) {
            wanted.push(created.name_any());
        }
    }
    assert!(!wanted.is_empty() && wanted.len() < pods.len());
    let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
    watches.until_selected(&shop, &wanted).await;
}

#[tokio::test]
async fn the_last_state_of_a_runs_deleted_pod_is_kept() {
    let shop = migrator("shop").selecting("app", "shop");
    let mut watches = Watches::of(&[&shop]).await;
    let run = pod("run").label(names::RUN_LABEL, "shop").container(names::RUN_CONTAINER, "shop:v1");
    watches.namespace.create(&run).await;
    watches.namespace.start_pod("run").await;
    watches.namespace.end_container("run", names::RUN_CONTAINER, 3, "no such table").await;
    let pods: Api<Pod> = watches.namespace.api();
    pods.delete("run", &DeleteParams::default().grace_period(0)).await.expect("a Pod");

    let gone = |seen: Seen| seen.of_runs.into_iter().find(|pod| pod.gone);
    let gone: PodFacts = watches.until(&shop.build(), gone).await;
    let state = &gone.key_container(Some(names::RUN_CONTAINER)).expect("its container").state;
    assert!(matches!(state, ContainerState::Terminated(end) if end.exit_code == 3), "{state:?}");
    assert!(!gone.unfinished() && !gone.live());
    watches.runs.forget(watches.namespace.name(), "shop");
    assert!(watches.seen(&shop.build()).expect("listed").of_runs.is_empty());
}
