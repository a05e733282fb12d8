//! A real API server takes what users install, keeps what the controller wrote when it is installed again, and is rid of
//! it after an uninstall.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_testkit::builders::{migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace};
use serde_json::json;

use super::programs::{kustomize, objects, output, output_of, program_at, release, template, workspace};

const RELEASE: [&str; 2] = ["registry.example/team", "9.8.7"];

/// As users do, with further options.
fn apply(plane: &ControlPlane, yaml: &str, options: &[&str]) -> Result<String, String> {
    let mut kubectl = program_at(plane, "kubectl");
    output_of(kubectl.args(["apply", "--server-side", "--filename", "-"]).args(options), yaml)
}

/// Whether a server that checks every field would take it.
fn check(plane: &ControlPlane, yaml: &str) -> Result<String, String> {
    apply(plane, yaml, &["--dry-run=server", "--validate=strict"])
}

fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> String {
    output(program_at(plane, "kubectl").args(arguments)).unwrap()
}

fn helm(plane: &ControlPlane, arguments: &[&str]) -> Result<String, String> {
    output(program_at(plane, "helm").args(["--namespace", names::OPERATOR_NAMESPACE]).args(arguments))
}

/// Asks until the answer is this: the API server takes up changes of namespaces and of webhooks in its own time.
async fn until<T: Debug>(asked: impl AsyncFn() -> T, wanted: impl Fn(&T) -> bool) {
    let mut answer = asked().await;
    for _ in 0..600 {
        if wanted(&answer) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = asked().await;
    }
    panic!("the last answer was {answer:?}");
}

async fn would_create(pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&params, pod).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_strict_api_server_takes_what_a_release_installs_and_each_setting_of_the_chart() {
    let plane = ControlPlane::start_without_crds().await;
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": names::OPERATOR_NAMESPACE } })).unwrap();
    // A dry run doesn't see the namespace that it would make.
    Api::all(plane.client()).create(&PostParams::default(), &namespace).await.unwrap();

    let (install, _folder) = release(&RELEASE).unwrap();
    let count = |text: &str| text.lines().count();
    assert_eq!(count(&check(&plane, &install).unwrap()), objects(&install).len());
    for components in [&["host-network"], &["one-replica"]] {
        check(&plane, &kustomize(components)).unwrap();
    }
    let all = [
        "controller.replicas=1",
        "controller.args={--hide-run-output}",
        "controller.tolerations[0].operator=Exists",
        "webhook.hostNetwork=true",
        "webhook.ports.admission=10250",
        "webhook.args={--waiter-timeout=9}",
        "webhook.nodeSelector.pool=system",
        "webhook.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution=null",
        "imagePullSecrets[0].name=my-registry",
    ];
    for values in [&[][..], &all] {
        let chart = template(names::OPERATOR_NAMESPACE, values).unwrap();
        assert_eq!(count(&check(&plane, &chart).unwrap()), objects(&chart).len());
    }

    let typo = install.replacen("topologySpreadConstraints:", "topologySpreadConstraint:", 1);
    let refusal = check(&plane, &typo).unwrap_err();
    assert!(refusal.contains("topologySpreadConstraint"), "{refusal}");
}

#[tokio::test]
async fn the_namespace_takes_the_operators_pods() {
    let plane = ControlPlane::start_without_crds().await;
    let pods: Api<Pod> = Api::namespaced(plane.client(), names::OPERATOR_NAMESPACE);
    let pods_of = |yaml: &str| -> Vec<Pod> {
        let deployments = objects(yaml).into_iter().filter(|object| object["kind"] == "Deployment");
        let templates = deployments.map(|deployment| {
            let mut template = deployment["spec"]["template"].clone();
            template["metadata"]["name"] = deployment["metadata"]["name"].clone();
            serde_json::from_value(template).unwrap()
        });
        templates.collect()
    };
    let host_network = kustomize(&["host-network"]);
    for yaml in [&host_network, &kustomize(&["one-replica"]), &kustomize(&[])] {
        apply(&plane, yaml, &[]).unwrap();
        for pod in pods_of(yaml) {
            until(async || would_create(&pods, &pod).await, Result::is_ok).await;
        }
    }
    // Which it is held to: nothing else is let in.
    let on_the_nodes_network = pods_of(&host_network).remove(1);
    assert_eq!(on_the_nodes_network.spec.as_ref().unwrap().host_network, Some(true));
    until(
        async || would_create(&pods, &on_the_nodes_network).await,
        |answer| answer.as_ref().is_err_and(|error| error.contains("violates PodSecurity")),
    )
    .await;
}

/// A Migrator with a record, and a Pod that its entry refuses, since nobody serves the webhook.
struct Gated<'a> {
    plane: &'a ControlPlane,
    namespace: TestNamespace,
    pod: Pod,
}

impl<'a> Gated<'a> {
    async fn in_the(plane: &'a ControlPlane) -> Self {
        kubectl(plane, &["wait", "--for=condition=Established", "crd/migrators.migrations.coderanger.net"]);
        let namespace = plane.namespace().await;
        namespace.create(&migrator("shop").selecting("app", "web")).await;
        let record = Patch::Merge(json!({ "status": { "lastSuccessfulMigration": "shop:v1" } }));
        namespace.api::<Migrator>().patch_status("shop", &PatchParams::default(), &record).await.unwrap();

        // As the controller writes its entries.
        let controller = plane.client_as(names::OPERATOR_NAMESPACE, "migrations-controller");
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(controller);
        let mut configuration = configurations.get("zz-migrations-03").await.unwrap();
        let entry = serde_json::from_value(json!([{
            "name": "shop.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "clientConfig": { "url": "https://127.0.0.1:1/" },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace.name() } },
        }]));
        configuration.webhooks = Some(entry.unwrap());
        let params =
            PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        configurations.replace("zz-migrations-03", &params, &configuration).await.unwrap();

        let mut pod = pod("web").label("app", "web").container("app", "shop:v2").build();
        pod.metadata.namespace = None;
        let gated = Self { plane, namespace, pod };
        gated.is_held().await;
        gated
    }

    /// The entry is there, and refuses the Pod.
    async fn is_held(&self) {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.plane.client());
        let configuration = configurations.get("zz-migrations-03").await.unwrap();
        assert_eq!(configuration.webhooks.map_or(0, |entries| entries.len()), 1);
        let asked = async || would_create(&self.namespace.api(), &self.pod).await;
        until(asked, |answer| answer.as_ref().is_err_and(|error| error.contains("shop.example.com"))).await;
    }

    /// Nothing is left that could refuse a Pod or act, and the Migrator has its record.
    async fn is_free(&self) {
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.plane.client());
        let left = configurations.list(&ListParams::default()).await.unwrap();
        let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
        assert!(left.is_empty(), "{left:?}");
        until(async || would_create(&self.namespace.api(), &self.pod).await, Result::is_ok).await;
        let roles = kubectl(self.plane, &["get", "clusterroles,clusterrolebindings", "--output", "name"]);
        assert!(!roles.contains("migrations-"), "{roles}");
        self.is_remembered().await;
    }

    async fn is_remembered(&self) {
        let migrator = self.namespace.api::<Migrator>().get("shop").await.unwrap();
        assert_eq!(migrator.status.unwrap().last_successful_migration.as_deref(), Some("shop:v1"));
    }
}

/// The commands of the README's first block under this heading.
fn readme(heading: &str) -> String {
    let text = std::fs::read_to_string(workspace().join("README.md")).unwrap();
    let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn uninstalled_as_the_readme_has_it_nothing_holds_a_pod_and_migrators_stay() {
    let plane = ControlPlane::start_without_crds().await;
    let (install, _folder) = release(&RELEASE).unwrap();
    apply(&plane, &install, &[]).unwrap();
    let gated = Gated::in_the(&plane).await;
    // An update is applied like the first version.
    apply(&plane, &install, &[]).unwrap();
    gated.is_held().await;

    output(program_at(&plane, "sh").args(["-euc", &readme("## Uninstall")])).unwrap();
    gated.is_free().await;
    let namespaces: Api<Namespace> = Api::all(plane.client());
    assert!(namespaces.get_opt(names::OPERATOR_NAMESPACE).await.unwrap().is_none());

    apply(&plane, &install, &[]).unwrap();
    gated.is_remembered().await;
}

#[tokio::test]
async fn a_release_of_the_chart_is_upgraded_and_uninstalled_like_that_too() {
    let plane = ControlPlane::start_without_crds().await;
    let install = ["install", "migrations-operator", "chart", "--create-namespace"];
    helm(&plane, &install).unwrap();
    let gated = Gated::in_the(&plane).await;
    helm(&plane, &["upgrade", "migrations-operator", "chart", "--set", "webhook.replicas=3"]).unwrap();
    gated.is_held().await;
    let second = ["install", "second", "chart", "--namespace", "elsewhere", "--create-namespace"];
    let refusal = output(program_at(&plane, "helm").args(second)).unwrap_err();
    assert!(refusal.contains("cannot be imported into the current release"), "{refusal}");

    let said = helm(&plane, &["uninstall", "migrations-operator"]).unwrap();
    assert!(said.contains("migrators.migrations.coderanger.net"), "it says what it keeps: {said}");
    gated.is_free().await;

    helm(&plane, &install).unwrap();
    gated.is_remembered().await;
}

/// Both ways know the same objects, so that one can follow the other.
#[tokio::test]
async fn what_kubectl_installed_helm_takes_over() {
    let plane = ControlPlane::start_without_crds().await;
    apply(&plane, &kustomize(&[]), &[]).unwrap();
    let gated = Gated::in_the(&plane).await;
    let mut install = vec!["install", "migrations-operator", "chart", "--take-ownership"];
    if !helm(&plane, &["version", "--short"]).unwrap().starts_with("v3") {
        // Helm 4 applies as kubectl does, and minds who applied before.
        install.push("--force-conflicts");
    }
    helm(&plane, &install).unwrap();
    gated.is_held().await;
    gated.is_remembered().await;
}
