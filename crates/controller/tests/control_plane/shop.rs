//! A shop in a namespace of its own, and a controller that can be stopped and started.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::conditions::READY;
use migrations_api::{Migrator, MigratorStatus, names};
use migrations_controller::{PARTS, Parts};
use migrations_core::snapshot::Policy;
use migrations_process::probes::Readiness;
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_testkit::builders::{deployment, migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace, until};
use serde_json::json;
use tokio::task::JoinHandle;

/// A running controller.
pub(crate) struct Controller {
    stop: Trigger,
    task: JoinHandle<()>,
    pub(crate) readiness: Readiness,
}

impl Controller {
    /// A replica that works while it leads.
    pub(crate) fn start(client: Client, namespace: &str) -> Self {
        static REPLICAS: AtomicUsize = AtomicUsize::new(0);
        let (stop, shutdown) = Shutdown::by_hand();
        let (readiness, parts) = readiness();
        let identity = format!("replica-{}", REPLICAS.fetch_add(1, Ordering::Relaxed));
        let policy = Policy::default();
        let running =
            migrations_controller::run(client, namespace.to_owned(), identity, policy, parts, shutdown);
        Self { stop, task: tokio::spawn(Box::pin(running)), readiness }
    }

    /// One that works whoever leads.
    pub(crate) fn start_leading(client: Client, namespace: &str) -> Self {
        let (stop, shutdown) = Shutdown::by_hand();
        let (readiness, parts) = readiness();
        parts.lease.set(true);
        let work =
            Box::pin(migrations_controller::lead(client, namespace.to_owned(), Policy::default(), parts));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                () = shutdown.requested() => {}
            }
        });
        Self { stop, task, readiness }
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

/// A Migrator and a Deployment of Pods that it selects.
pub(crate) struct Shop {
    pub(crate) operator: TestNamespace,
    pub(crate) namespace: TestNamespace,
}

impl Shop {
    /// In a control plane that no other test uses: controllers look at all namespaces.
    pub(crate) async fn open(plane: &ControlPlane) -> Self {
        ship_configurations(plane.client()).await;
        Self { operator: plane.namespace().await, namespace: plane.namespace().await }
    }

    pub(crate) fn controller(&self) -> Controller {
        Controller::start(self.namespace.client(), self.operator.name())
    }

    /// One that works whoever leads.
    pub(crate) fn leading_controller(&self) -> Controller {
        Controller::start_leading(self.namespace.client(), self.operator.name())
    }

    pub(crate) async fn create_migrator(&self) {
        let shop = migrator("shop").selecting("app", "shop").command(["migrate"]).backoff_limit(0);
        self.namespace.create(&shop).await;
    }

    pub(crate) async fn deploy(&self, image: &str) {
        let template = pod("web")
            .label("app", "shop")
            .annotation(names::NO_WAIT_ANNOTATION, "true")
            .container("app", image);
        self.namespace.create(&deployment("web").template(&template).replicas(2)).await;
    }

    pub(crate) async fn set_image(&self, image: &str) {
        let patch = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "app", "image": image }] } } } });
        let deployments: Api<Deployment> = self.namespace.api();
        deployments
            .patch("web", &PatchParams::default(), &Patch::Strategic(patch))
            .await
            .expect("a Deployment");
    }

    /// Waits until the Migrator's status is as asked for.
    pub(crate) async fn until_status(
        &self,
        what: &str,
        as_asked: impl Fn(&MigratorStatus) -> bool,
    ) -> MigratorStatus {
        let found =
            |all: &[Migrator]| all.iter().filter_map(|it| it.status.clone()).find(|status| as_asked(status));
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

    /// Waits for the Pod of the run of `image`, and has it run.
    pub(crate) async fn run_starts(&self, image: &str) -> String {
        let of_image = |pods: &[Pod]| {
            let run = |pod: &&Pod| is_run(pod) && unfinished(pod) && image_of(pod) == Some(image);
            pods.iter().find(run).map(ResourceExt::name_any)
        };
        let name = self.namespace.until::<Pod, _>("the run's Pod", of_image).await;
        self.namespace.start_pod(&name).await;
        name
    }

    /// How many Pods there are or were of runs.
    pub(crate) async fn runs(&self) -> usize {
        let pods: Api<Pod> = self.namespace.api();
        pods.list(&kube::api::ListParams::default())
            .await
            .expect("Pods")
            .iter()
            .filter(|pod| is_run(pod))
            .count()
    }
}

/// As the manifests ship them: without a `webhooks` in them.
async fn ship_configurations(client: Client) {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    let all = (0..names::ENTRY_SHARDS).map(names::entry_configuration);
    for name in all.chain([names::REQUIRED_CONFIGURATION.to_owned()]) {
        let empty = serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a configuration");
        api.create(&PostParams::default(), &empty).await.expect("a configuration");
    }
}

/// The versions of all webhook configurations: another one where anything was written.
pub(crate) async fn configuration_versions(client: Client) -> Vec<Option<String>> {
    let api = Api::<MutatingWebhookConfiguration>::all(client);
    let all = api.list(&kube::api::ListParams::default()).await.expect("configurations");
    all.into_iter().map(|it| it.metadata.resource_version).collect()
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

pub(crate) fn is_run(pod: &Pod) -> bool {
    pod.labels().get(names::RUN_LABEL).is_some_and(|label| label == "shop")
}

fn unfinished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn image_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.containers.first()?.image.as_deref()
}
