//! A shop in a namespace of its own, and a controller that can be stopped and started.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use migrations_api::conditions::READY;
use migrations_api::{Migrator, MigratorStatus, names};
use migrations_controller::metrics::Metrics;
use migrations_controller::{PARTS, Parts};
use migrations_core::snapshot::Policy;
use migrations_process::probes::Readiness;
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_testkit::builders::{Object, deployment, migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace, until};
use prometheus_client::encoding::text::encode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::admission::APP;
use super::{shared, webhook};

/// A running controller.
pub(crate) struct Controller {
    stop: Trigger,
    task: JoinHandle<()>,
    pub(crate) readiness: Readiness,
    metrics: Metrics,
}

impl Controller {
    /// A replica that works while it leads.
    pub(crate) fn start(client: Client, namespace: &str, policy: Policy) -> Self {
        static REPLICAS: AtomicUsize = AtomicUsize::new(0);
        let (stop, shutdown) = Shutdown::by_hand();
        let (readiness, parts) = readiness();
        let identity = format!("replica-{}", REPLICAS.fetch_add(1, Ordering::Relaxed));
        let metrics = Metrics::default();
        let running = migrations_controller::run(
            client,
            namespace.to_owned(),
            identity,
            policy,
            parts,
            metrics.clone(),
            shutdown,
        );
        Self { stop, task: tokio::spawn(Box::pin(running)), readiness, metrics }
    }

    /// One that works whoever leads.
    pub(crate) fn start_leading(client: Client, namespace: &str) -> Self {
        let (stop, shutdown) = Shutdown::by_hand();
        let (readiness, parts) = readiness();
        parts.lease.set(true);
        let (namespace, policy, metrics) = (namespace.to_owned(), Policy::default(), Metrics::default());
        let work = Box::pin(migrations_controller::lead(client, namespace, policy, parts, metrics.clone()));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.requested() => {}
            }
        });
        Self { stop, task, readiness, metrics }
    }

    /// Until the test process ends.
    pub(crate) async fn go_on(self) {
        self.task.await.expect("the controller never panics");
    }

    /// Waits for a line of its metrics to begin like that.
    pub(crate) async fn until_it_counts(&self, line: &str) {
        let text = || {
            let mut text = String::new();
            encode(&mut text, &self.metrics.registry()).expect("text");
            text
        };
        // Prometheus asks, and so does the test.
        let counts = async {
            while !text().lines().any(|told| told.starts_with(line)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(20), counts).await;
        assert!(counted.is_ok(), "never {line}:\n{}", text());
    }

    /// As an orderly end, in the middle of whatever it does.
    pub(crate) async fn stop(self) {
        self.stop.request();
        self.task.await.expect("the controller never panics");
    }
}

fn readiness() -> (Readiness, Parts) {
    let (readiness, [lease, migrators, jobs, gate]) = Readiness::of(PARTS);
    (readiness, Parts { lease, migrators, jobs, gate })
}

/// A Migrator, and workloads whose Pods it selects by the label `app`, which has its name.
#[derive(Clone)]
pub(crate) struct Shop {
    /// The operator's namespace.
    pub(crate) operator: String,
    pub(crate) namespace: TestNamespace,
    /// The Migrator's name.
    pub(crate) name: &'static str,
}

impl Shop {
    /// In a control plane that no other test uses: controllers look at all namespaces.
    pub(crate) async fn open(plane: &ControlPlane) -> Self {
        let shop = Self::open_without_webhook(plane).await;
        webhook::serve(plane, &shop.operator).await;
        shop
    }

    /// The same, while the API server reaches no webhook.
    pub(crate) async fn open_without_webhook(plane: &ControlPlane) -> Self {
        ship_configurations(plane.client()).await;
        let operator = plane.namespace().await.name().to_owned();
        Self { operator, namespace: plane.namespace().await, name: "shop" }
    }

    /// Beside other tests', where a controller runs already; see [`shared`].
    pub(crate) async fn beside_others() -> Self {
        let plane = shared::plane().await;
        let operator = names::OPERATOR_NAMESPACE.to_owned();
        Self { operator, namespace: plane.namespace().await, name: "shop" }
    }

    /// Another Migrator of the same namespace.
    pub(crate) fn neighbour(&self, name: &'static str) -> Self {
        Self { name, ..self.clone() }
    }

    pub(crate) fn controller(&self) -> Controller {
        self.controller_with(Policy::default())
    }

    pub(crate) fn controller_with(&self, policy: Policy) -> Controller {
        Controller::start(self.namespace.client(), &self.operator, policy)
    }

    /// The Migrator, to be created.
    pub(crate) fn migrator(&self) -> Object<Migrator> {
        migrator(self.name).selecting(APP, self.name).command(["migrate"]).backoff_limit(0)
    }

    /// One that works whoever leads.
    pub(crate) fn leading_controller(&self) -> Controller {
        Controller::start_leading(self.namespace.client(), &self.operator)
    }

    pub(crate) async fn create_migrator(&self) {
        self.namespace.create(&self.migrator()).await;
    }

    /// What Pods are made from.
    pub(crate) fn template(&self, image: &str) -> Object<Pod> {
        pod("web").label(APP, self.name).container("app", image)
    }

    pub(crate) async fn deploy(&self, image: &str) {
        let template = self.template(image).annotation(names::NO_WAIT_ANNOTATION, "true");
        self.namespace.create(&deployment("web").template(&template).replicas(2)).await;
    }

    pub(crate) async fn set_image(&self, image: &str) {
        self.set_image_of::<Deployment>("web", image).await;
    }

    /// Gives a workload another image.
    pub(crate) async fn set_image_of<K>(&self, name: &str, image: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let containers = json!([{ "name": "app", "image": image }]);
        let template = json!({ "spec": { "containers": containers } });
        let patch = Patch::Strategic(json!({ "spec": { "template": template } }));
        let api: Api<K> = self.namespace.api();
        api.patch(name, &PatchParams::default(), &patch).await.expect("it is there");
    }

    /// Merges `patch` into an object.
    pub(crate) async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let api: Api<K> = self.namespace.api();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is there");
    }

    /// Deletes an object, and in the background what it owns.
    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let api: Api<K> = self.namespace.api();
        api.delete(name, &DeleteParams::background()).await.expect("it is there");
    }

    /// Waits until the Migrator's status is as asked for.
    pub(crate) async fn until_status(
        &self,
        what: &str,
        as_asked: impl Fn(&MigratorStatus) -> bool,
    ) -> MigratorStatus {
        let found = |all: &[Migrator]| {
            let ours = all.iter().find(|it| it.name_any() == self.name)?;
            ours.status.clone().filter(|status| as_asked(status))
        };
        self.namespace.until::<Migrator, _>(what, found).await
    }

    pub(crate) async fn until_reason(&self, reason: &str) -> MigratorStatus {
        self.until_status(reason, |status| {
            status.conditions.iter().any(|it| it.type_ == READY && it.reason == reason)
        })
        .await
    }

    pub(crate) async fn until_done(&self, image: &str) -> MigratorStatus {
        self.until_status(image, |status| status.done.iter().any(|done| done.key == image)).await
    }

    pub(crate) async fn status(&self) -> MigratorStatus {
        let migrators: Api<Migrator> = self.namespace.api();
        migrators.get(self.name).await.expect("the Migrator").status.unwrap_or_default()
    }

    /// Waits for a Pod of `image` that the Migrator selects, and has all of them run.
    pub(crate) async fn pods_start(&self, image: &str) -> Vec<String> {
        let names = self.until_pods(image).await;
        for name in &names {
            self.namespace.start_pod(name).await;
        }
        names
    }

    /// Waits for Pods of `image` that the Migrator selects.
    pub(crate) async fn until_pods(&self, image: &str) -> Vec<String> {
        let of_image = |pods: &[Pod]| {
            let selected = |pod: &&Pod| pod.labels().get(APP).is_some_and(|app| app == self.name);
            let pods = pods.iter().filter(selected).filter(|pod| live(pod) && image_of(pod) == Some(image));
            let names: Vec<_> = pods.map(ResourceExt::name_any).collect();
            (!names.is_empty()).then_some(names)
        };
        self.namespace.until::<Pod, _>("Pods", of_image).await
    }

    /// Waits until a Pod is being deleted.
    pub(crate) async fn until_terminating(&self, name: &str) {
        let terminating = |pods: &[Pod]| {
            let pod = pods.iter().find(|pod| pod.name_any() == name)?;
            pod.metadata.deletion_timestamp.as_ref().map(drop)
        };
        self.namespace.until::<Pod, _>("a Pod that is being deleted", terminating).await;
    }

    /// Waits until a Pod is being deleted, and plays the kubelet that ends it.
    pub(crate) async fn until_pod_ends(&self, name: &str) {
        self.until_terminating(name).await;
        self.namespace.end_pod(name).await;
    }

    pub(crate) async fn uid_of(&self, pod: &str) -> String {
        let pods: Api<Pod> = self.namespace.api();
        pods.get(pod).await.expect("the Pod").uid().expect("a uid")
    }

    /// The revision of a Pod, as its waiter tells it.
    pub(crate) async fn revision_of(&self, pod: &str) -> String {
        let pods: Api<Pod> = self.namespace.api();
        let spec = pods.get(pod).await.expect("the Pod").spec.unwrap_or_default();
        let mut args =
            spec.init_containers.unwrap_or_default().into_iter().filter_map(|it| it.args).flatten();
        let revision = args.find_map(|arg| arg.strip_prefix("--revision=").map(str::to_owned));
        revision.expect("a revision")
    }

    /// Waits for an event of that reason that says so.
    pub(crate) async fn until_event(&self, reason: &str, says: &str) {
        let told = |all: &[Event]| {
            let of_reason = |it: &&Event| it.reason.as_deref() == Some(reason);
            let notes = all.iter().filter(of_reason).filter_map(|it| it.note.as_deref());
            notes.into_iter().any(|note| note.contains(says)).then_some(())
        };
        self.namespace.until::<Event, _>(says, told).await;
    }
}

/// As the manifests ship them: without a `webhooks` in them.
async fn ship_configurations(client: Client) {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    let all = (0..names::ENTRY_SHARDS).map(names::entry_configuration);
    for name in all.chain([names::REQUIRED_CONFIGURATION, names::PROBE_CONFIGURATION].map(str::to_owned)) {
        let empty = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a configuration");
        api.create(&PostParams::default(), &empty).await.expect("a configuration");
    }
}

/// The versions of all webhook configurations: another one where anything was written.
pub(crate) async fn configuration_versions(client: Client) -> Vec<Option<String>> {
    configurations(client).await.into_iter().map(|it| it.metadata.resource_version).collect()
}

/// The webhook configurations, with all their entries.
pub(crate) async fn configurations(client: Client) -> Vec<MutatingWebhookConfiguration> {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    api.list(&kube::api::ListParams::default()).await.expect("configurations").items
}

/// Waits until a webhook entry holds `text`.
pub(crate) async fn until_entry_says(client: Client, text: &str) {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    let says = |all: &[MutatingWebhookConfiguration]| {
        let whole = serde_json::to_string(all).expect("JSON");
        whole.contains(text).then_some(())
    };
    until(&api, text, says).await;
}

pub(crate) async fn until_ready(readiness: &Readiness) {
    // Readiness is told to the kubelet, which asks: so does the test.
    while readiness.missing().next().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

pub(super) fn image_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}
