//! The whole webhook against a real API server, with the rights it is documented to need and no
//! others: what happens to Pods that users create.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_protocol::{Answer, Arguments, QUESTION_PATH, TOKEN_AUDIENCE, Verdict};
use migrations_testkit::builders::{Object, existing, migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace, free_ports};
use migrations_webhook::config::Config;
use migrations_webhook::run_with;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use ureq::tls::{RootCerts, TlsConfig};

const ACCOUNT: &str = "migrations-webhook";

/// A webhook that serves the Pods of one namespace.
struct Installed {
    /// The users' namespace.
    namespace: TestNamespace,
    /// Where waiters are to ask first.
    address: String,
    authority: String,
    question_port: u16,
    _end: Trigger,
}

impl Installed {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await;
        let (operator, namespace) = tokio::join!(plane.namespace(), plane.namespace());
        let [admission_port, question_port, probe_port] = free_ports();
        allow(&operator).await;
        plane.expose(operator.name(), names::WEBHOOK_SERVICE, 443, admission_port).await;
        let authority = certificate(&operator).await;

        let config = Config::parse_from([
            "migrations-webhook".to_owned(),
            "--waiter-image=waiter:1".to_owned(),
            format!("--namespace={}", operator.name()),
            format!("--probe-port={probe_port}"),
            format!("--admission-port={admission_port}"),
            format!("--question-port={question_port}"),
        ]);
        let (end, asked) = Shutdown::by_hand();
        let client = plane.client_as(operator.name(), ACCOUNT);
        tokio::spawn(async move { run_with(config, client, asked).await.unwrap() });
        while TcpStream::connect(("127.0.0.1", admission_port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let service: Service = operator.api().get(names::WEBHOOK_SERVICE).await.unwrap();
        let address = format!("{}:8443", service.spec.unwrap().cluster_ip.unwrap());
        let installed = Self { namespace, address, authority, question_port, _end: end };
        installed.configure(operator.name()).await;
        installed
    }

    /// Points the API server at the webhook, and waits until it knows.
    async fn configure(&self, operator: &str) {
        let configuration: MutatingWebhookConfiguration = from_json(json!({
            "metadata": {"name": format!("zz-{operator}")},
            "webhooks": [{
                "name": "pods.migrations.coderanger.net", "admissionReviewVersions": ["v1"],
                "sideEffects": "None", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 5,
                "failurePolicy": "Fail",
                "clientConfig": {
                    "service": {"namespace": operator, "name": names::WEBHOOK_SERVICE, "path": "/admit"},
                    "caBundle": ByteString(self.authority.clone().into_bytes()),
                },
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace.name()}},
            }],
        }));
        Api::all(self.namespace.client()).create(&PostParams::default(), &configuration).await.unwrap();
        let probe = pod("probe").annotation(names::REQUIRED_ANNOTATION, "true").container("app", "shop:1");
        while self.dry_run(&probe).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn dry_run(&self, pod: &Object<Pod>) -> Result<Pod, kube::Error> {
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        let pod = pod.clone().namespace(self.namespace.name()).build();
        self.namespace.api().create(&dry_run, &pod).await
    }

    /// Creates a Migrator and waits until the webhook has seen it.
    async fn migrator(&self, migrator: &Object<Migrator>, app: &str) {
        self.namespace.create(migrator).await;
        let probe = pod("probe").label("app", app).container("app", "shop:1");
        while waiters(&self.dry_run(&probe).await.unwrap()).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The token that the kubelet would bring into the Pod.
    async fn token(&self, pod: &Pod) -> String {
        let request: TokenRequest = from_json(json!({"metadata": {}, "spec": {
            "audiences": [TOKEN_AUDIENCE], "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()},
        }}));
        let accounts: Api<ServiceAccount> = self.namespace.api();
        let made = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
        format!("Bearer {}", made.status.unwrap().token)
    }

    /// Asks what the Pod's first waiter would ask.
    async fn ask(&self, pod: &Pod, seen: Option<String>) -> Answer {
        let arguments = Arguments::parse(waiters(pod)[0].args.clone().unwrap()).unwrap();
        assert_eq!(arguments.servers[0], self.address);
        let question = serde_json::to_vec(&arguments.question(seen)).unwrap();
        let token = self.token(pod).await;
        let trusted = ureq::tls::Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let url = format!("https://127.0.0.1:{}{QUESTION_PATH}", self.question_port);
        let body = tokio::task::spawn_blocking(move || {
            let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
            let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).proxy(None).build().into();
            agent
                .post(url)
                .header("authorization", token)
                .send(&question[..])
                .unwrap()
                .body_mut()
                .read_to_string()
                .unwrap()
        });
        serde_json::from_str(&body.await.unwrap()).unwrap()
    }
}

/// The rights that the manifests have to give.
async fn allow(operator: &TestNamespace) {
    let name = format!("{ACCOUNT}-{}", operator.name());
    let subject = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": operator.name()}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let (verbs, client) = (["list", "watch"], operator.client());
    let cluster_role: ClusterRole = from_json(json!({
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [names::GROUP], "resources": ["migrators"], "verbs": verbs},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        ],
    }));
    let role: Role = from_json(json!({
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [names::SERVING_SECRET], "verbs": verbs},
            {"apiGroups": [""], "resources": ["services"], "resourceNames": [names::WEBHOOK_SERVICE], "verbs": verbs},
        ],
    }));
    let everywhere: ClusterRoleBinding = from_json(
        json!({"metadata": {"name": name}, "roleRef": reference("ClusterRole"), "subjects": subject}),
    );
    let here: RoleBinding =
        from_json(json!({"metadata": {"name": name}, "roleRef": reference("Role"), "subjects": subject}));
    let params = PostParams::default();
    Api::all(client.clone()).create(&params, &cluster_role).await.unwrap();
    Api::all(client).create(&params, &everywhere).await.unwrap();
    operator.api().create(&params, &role).await.unwrap();
    operator.api().create(&params, &here).await.unwrap();
}

/// Puts a serving certificate where the controller would; returns its authority.
async fn certificate(operator: &TestNamespace) -> String {
    let names = [format!("{}.{}.svc", names::WEBHOOK_SERVICE, operator.name()), "127.0.0.1".to_owned()];
    let generated = rcgen::generate_simple_self_signed(names).unwrap();
    let bytes = |text: String| ByteString(text.into_bytes());
    let secret: Secret = from_json(json!({
        "metadata": {"name": names::SERVING_SECRET},
        "data": {"tls.crt": bytes(generated.cert.pem()), "tls.key": bytes(generated.signing_key.serialize_pem())},
    }));
    operator.api().create(&PostParams::default(), &secret).await.unwrap();
    generated.cert.pem()
}

fn from_json<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn waiters(pod: &Pod) -> Vec<&k8s_openapi::api::core::v1::Container> {
    let containers = pod.spec.as_ref().unwrap().init_containers.iter().flatten();
    containers.filter(|container| container.name.starts_with(names::WAITER_PREFIX)).collect()
}

fn shop_pod(name: &str) -> Object<Pod> {
    pod(name).label("app", "shop").container("app", "shop:2")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_pod_waits_and_is_released_by_the_migrators_status() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let pod = shop_pod("shop").init_container("setup", "setup:1");
    let pod = webhook.namespace.create(&pod).await;

    let init: Vec<_> = pod.spec.as_ref().unwrap().init_containers.iter().flatten().collect();
    assert_eq!(init.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["migrate-wait-shop", "setup"]);
    let waiting = webhook.ask(&pod, None).await;
    assert_eq!((waiting.verdict, waiting.reason.as_str()), (Verdict::Wait, "Pending"));

    let (migrators, seen) = (webhook.namespace.api::<Migrator>(), Some(waiting.version));
    let held = webhook.ask(&pod, seen);
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let done = json!({"status": {"done": [{"key": "shop:2", "image": "shop:2", "how": "Succeeded"}]}});
        migrators.patch_status("shop", &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    };
    let (answer, ()) =
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(held, release) }).await.unwrap();
    assert_eq!(answer.verdict, Verdict::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_be_changed_while_and_after_it_waits() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let pod = webhook.namespace.create(&shop_pod("shop")).await;
    let patch = Patch::Merge(json!({"metadata": {"labels": {"changed": "yes"}}}));
    let after = webhook.namespace.api::<Pod>().patch("shop", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(waiters(&after), waiters(&pod));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_need_not_wait_are_created_as_they_are() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let other = pod("other").label("app", "blog").container("app", "blog:1");
    let no_wait = shop_pod("no-wait").annotation(names::NO_WAIT_ANNOTATION, "true");
    for pod in [other, no_wait] {
        assert!(webhook.namespace.create(&pod).await.spec.unwrap().init_containers.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_pod_is_refused_until_a_migrator_selects_it() {
    let webhook = Installed::new().await;
    let required = shop_pod("shop").annotation(names::REQUIRED_ANNOTATION, "true");
    match webhook.dry_run(&required).await.unwrap_err() {
        kube::Error::Api(status) => {
            assert_eq!(status.code, 403, "{status:?}");
            assert!(status.message.contains("no Migrator in that namespace selects it"), "{status:?}");
        }
        other => panic!("{other:?}"),
    }
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    assert_eq!(waiters(&webhook.namespace.create(&required).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restricted_namespace_takes_a_pod_that_waits() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(webhook.namespace.client());
    namespaces
        .patch(webhook.namespace.name(), &PatchParams::default(), &Patch::Merge(restricted))
        .await
        .unwrap();
    let context = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let pod =
        pod("shop").label("app", "shop").container_with("app", "shop:2", json!({"securityContext": context}));
    assert_eq!(waiters(&webhook.namespace.create(&pod).await).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_restored_with_its_waiter_is_not_given_another() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let pod = webhook.namespace.create(&shop_pod("shop")).await;
    let mut copy = existing(&pod).json();
    copy["metadata"] =
        json!({"name": "copy", "labels": {"app": "shop"}, "namespace": webhook.namespace.name()});
    let copy: Pod = from_json(copy);
    let copy = webhook.namespace.api::<Pod>().create(&PostParams::default(), &copy).await.unwrap();
    assert_eq!(waiters(&copy), waiters(&pod));
}

/// A client is made of the rights that are tested here; it must not be the one that may do anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_may_not_read_other_secrets() {
    let plane = ControlPlane::shared().await;
    let operator = plane.namespace().await;
    allow(&operator).await;
    let client: Client = plane.client_as(operator.name(), ACCOUNT);
    let secrets: Api<Secret> = Api::namespaced(client, operator.name());
    assert!(secrets.get(names::CA_SECRET).await.is_err_and(|error| error.to_string().contains("forbidden")));
}
