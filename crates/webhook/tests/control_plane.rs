//! The whole webhook against a real API server, with the rights it is documented to need and no
//! others: what happens to Pods that users create.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

#[path = "control_plane/shapes.rs"]
mod shapes;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use migrations_api::{DoneKey, How, Migrator, MigratorStatus, names};
use migrations_core::entries::{Endpoint, Gated, configurations};
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
    /// The operator's namespace.
    operator: String,
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
        Self::on(ControlPlane::shared().await).await
    }

    async fn on(plane: &ControlPlane) -> Self {
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
        let address = format!("{}:9444", service.spec.unwrap().cluster_ip.unwrap());
        let installed = Self {
            operator: operator.name().to_owned(),
            namespace,
            address,
            authority,
            question_port,
            _end: end,
        };
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
        self.until_known("app", app).await;
    }

    /// Waits until a Pod with that label would wait.
    async fn until_known(&self, label: &str, value: &str) {
        let probe = pod("probe").label(label, value).container("app", "shop:0");
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
    // The application's token is for the application: the API server mounts it into that, and not here.
    let mounts = |container: &k8s_openapi::api::core::v1::Container| {
        container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(mounts(init[0]), [names::WAITER_VOLUME]);
    assert!(mounts(init[1])[0].starts_with("kube-api-access-"));
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

/// The entries that the controller would write, in one configuration.
struct Entries<'a> {
    webhook: &'a Installed,
    operator: String,
}

impl<'a> Entries<'a> {
    /// Puts the entries of these Migrators, read at that version, in the place of the webhook's own.
    async fn put(webhook: &'a Installed, version: &str) -> Self {
        let list = webhook.namespace.api::<Migrator>().list(&ListParams::default()).await.unwrap();
        let operator = webhook.operator.clone();
        let authority = base64(&webhook.authority);
        let endpoint = Endpoint { namespace: operator.clone(), ca_bundle: authority };
        let gated = list.iter().map(|migrator| Gated {
            uid: migrator.metadata.uid.as_deref().unwrap(),
            resource_version: version,
            namespace: webhook.namespace.name(),
            spec: &migrator.spec,
            status: migrator.status.as_ref(),
            open: false,
        });
        let all = configurations(gated, &endpoint);
        let webhooks: Vec<_> = all.values().flatten().map(|entry| entry.settled(&[])).collect();
        let api: Api<MutatingWebhookConfiguration> = Api::all(webhook.namespace.client());
        let patch = Patch::Merge(json!({ "webhooks": webhooks }));
        api.patch(&format!("zz-{operator}"), &PatchParams::default(), &patch).await.unwrap();
        let entries = Self { webhook, operator };
        entries.until_used().await;
        entries
    }

    /// The API server takes up entries a moment after they are written: asked with the probe.
    async fn until_used(&self) {
        let pod: Pod = from_json(migrations_core::entries::probe::pod());
        let api: Api<Pod> = Api::namespaced(self.webhook.namespace.client(), &self.operator);
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        loop {
            match api.create(&dry_run, &pod).await {
                Err(kube::Error::Api(status)) => {
                    let told = migrations_core::entries::probe::verdict(Some(&status.message), "x");
                    break assert_eq!(told, Ok(()));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// How many calls the API server has made by these entries, in all.
    async fn calls(&self) -> u64 {
        let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
        let metrics = self.webhook.namespace.client().request_text(request).await.unwrap();
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.webhook.namespace.client());
        let ours = api.get(&format!("zz-{}", self.operator)).await.unwrap().webhooks.unwrap();
        // Those of other tests are named alike, save of Migrators.
        let names = ours.iter().map(|entry| entry.name.as_str()).filter(|name| !name.starts_with("probe"));
        let of = |name: &str| -> u64 {
            let label = format!("name=\"{name}\"");
            let count = "apiserver_admission_webhook_admission_duration_seconds_count{";
            let lines = metrics.lines().filter(|it| it.starts_with(count) && it.contains(&label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        names.map(of).sum()
    }
}

fn base64(text: &str) -> String {
    let text = serde_json::to_value(ByteString(text.as_bytes().to_vec())).unwrap();
    text.as_str().unwrap().to_owned()
}

fn done(images: &[&str]) -> Value {
    let key = |image: &&str| DoneKey::new((*image).to_owned(), (*image).to_owned(), How::Succeeded);
    json!({ "status": MigratorStatus { done: images.iter().map(key).collect(), ..MigratorStatus::default() } })
}

/// Ten done images, as many as are kept, and long ones: what a condition may cost.
fn ten_images() -> Vec<String> {
    (0..10).map(|index| format!("registry.example/{}/shop@sha256:{index:064}", "x".repeat(150))).collect()
}

/// A control plane of its own: the count of calls is the API server's.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_need_not_wait_never_reach_the_webhook() {
    let plane = ControlPlane::start().await;
    let webhook = Installed::on(&plane).await;
    let images = ten_images();
    let images: Vec<_> = images.iter().map(String::as_str).chain(["shop:1"]).collect();
    webhook.migrator(&migrator("shop").selecting("app", "shop").with(done(&images)), "shop").await;
    webhook
        .migrator(
            &migrator("named")
                .selecting("app", "named")
                .with(json!({ "spec": { "container": "app" } }))
                .with(done(&images)),
            "named",
        )
        .await;
    let entries = Entries::put(&webhook, "1").await;
    let before = entries.calls().await;

    let here = webhook.namespace.api::<Pod>();
    let pods = |namespace: &str| Api::<Pod>::namespaced(webhook.namespace.client(), namespace);
    let other = plane.namespace().await;
    let run = shop_pod("run").label(names::RUN_LABEL, "shop").annotation(names::NO_WAIT_ANNOTATION, "true");
    let many = (0..50).fold(pod("many").label("app", "named").container("app", "shop:1"), |pod, index| {
        pod.container(&format!("c{index}"), &format!("registry.example/{}/shop:{index}", "x".repeat(150)))
    });
    let past: Vec<(&Api<Pod>, Object<Pod>)> = vec![
        (&here, pod("unselected").label("app", "blog").container("app", "shop:2")),
        (&here, pod("without-labels").container("app", "shop:2")),
        (&here, shop_pod("no-wait").annotation(names::NO_WAIT_ANNOTATION, "true")),
        (&here, run),
        (&here, pod("done").label("app", "shop").container("app", "shop:1")),
        (&here, pod("tenth").label("app", "shop").container("app", images[9])),
        (&here, many),
    ];
    let elsewhere = [pods("kube-system"), pods(&webhook.operator), pods(other.name())];
    let required = shop_pod("required").annotation(names::REQUIRED_ANNOTATION, "true");
    let accounts = elsewhere.iter().take(2).map(|api| (api, required.clone()));
    let accounts = accounts.chain([(&elsewhere[2], shop_pod("elsewhere"))]);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for (api, pod) in past.into_iter().chain(accounts) {
        let namespace = api.namespace().unwrap_or_default().to_owned();
        let mut pod = pod.namespace(&namespace).build();
        // kube-system has no service account here.
        pod.spec.as_mut().unwrap().service_account_name = Some("default".to_owned());
        match api.create(&dry_run, &pod).await {
            Ok(created) => assert!(waiters(&created).is_empty(), "{:?}", pod.metadata.name),
            Err(error) => panic!("{namespace} {:?}: {error}", pod.metadata.name),
        }
    }
    assert_eq!(entries.calls().await, before);

    // The count counts. A second call follows when the API server mounts the Pod's token into the waiter.
    let waits = webhook.dry_run(&shop_pod("waits")).await.unwrap();
    assert_eq!(waiters(&waits).len(), 1);
    assert!(entries.calls().await > before);
    // Nor does a Pod that can't be: its refusal is the API server's own.
    let without_image = json!({ "spec": { "containers": [{ "name": "app" }] } });
    let refused = webhook.dry_run(&pod("odd").label("app", "named").with(without_image)).await.unwrap_err();
    assert!(refused.to_string().contains("image: Required value"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_entry_calls_for_all_migrators_of_the_namespace() {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    webhook.migrator(&migrator("twin").selecting("app", "shop"), "shop").await;
    webhook.migrator(&migrator("front").selecting("tier", "front"), "shop").await;
    webhook.until_known("tier", "front").await;
    let _entries = Entries::put(&webhook, "1").await;
    let pod = pod("x").label("app", "shop").label("tier", "front").container("app", "shop:2");
    let mut pod = pod.namespace(webhook.namespace.name()).build();
    pod.metadata.name = None;
    pod.metadata.generate_name = Some("web-".to_owned());
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    for params in [dry_run, PostParams::default()] {
        let created = webhook.namespace.api::<Pod>().create(&params, &pod).await.unwrap();
        let mut names: Vec<_> = waiters(&created).into_iter().map(|it| it.name.clone()).collect();
        names.sort();
        assert_eq!(names, ["migrate-wait-front", "migrate-wait-shop", "migrate-wait-twin"]);
    }
}

/// As if this replica were the last to hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_waits_for_what_its_entry_was_written_for() {
    // Of its own: Migrators of other tests would move the view on.
    let plane = ControlPlane::start().await;
    let webhook = Installed::on(&plane).await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let all = webhook.namespace.api::<Migrator>().list(&ListParams::default()).await.unwrap();
    let now: u64 = all.metadata.resource_version.unwrap().parse().unwrap();
    let _entries = Entries::put(&webhook, &(now + 1).to_string()).await;
    let created = async {
        let pod = shop_pod("early").namespace(webhook.namespace.name()).build();
        webhook.namespace.api::<Pod>().create(&PostParams::default(), &pod).await
    };
    let next = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        webhook.namespace.create(&migrator("next").selecting("app", "shop")).await;
    };
    let (created, ()) = tokio::join!(created, next);
    // It was held until the view had moved on, and the view already knew the next one then.
    let names: Vec<_> = waiters(&created.unwrap()).into_iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, ["migrate-wait-next", "migrate-wait-shop"]);
}

/// A mirror that comes after the waiter is in: the second call tells the waiter the new image. It costs a
/// call a Pod, and only where something changes the Pod after the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_changed_after_the_first_call_is_put_right_by_the_second() {
    let plane = ControlPlane::start().await;
    let webhook = Installed::on(&plane).await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    let entries = Entries::put(&webhook, "1").await;
    let before = entries.calls().await;
    let created = webhook.namespace.create(&shop_pod("unchanged")).await;
    assert_eq!((waiters(&created).len(), entries.calls().await - before), (1, 1));

    mirror(&webhook).await;
    let mirrored = async {
        let image = "mirror.example/shop:2";
        while webhook.dry_run(&shop_pod("shop")).await.unwrap().spec.unwrap().containers[0].image.as_deref()
            != Some(image)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), mirrored).await.expect("the policy is followed");
    let before = entries.calls().await;
    let created = webhook.namespace.create(&shop_pod("mirrored")).await;
    assert_eq!((waiters(&created).len(), entries.calls().await - before), (1, 2));
    let args = waiters(&created)[0].args.clone().unwrap();
    assert!(args.contains(&"--container=app=mirror.example/shop:2".to_owned()), "{args:?}");
}

/// A policy that rewrites the image of Pods that carry a waiter.
async fn mirror(webhook: &Installed) {
    let spec = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
        "matchConstraints": { "resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
        }] },
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression":
            r#"has(object.spec.initContainers) && !object.spec.containers[0].image.startsWith("mirror.example/") ?
                [JSONPatch{ op: "replace", path: "/spec/containers/0/image",
                    value: "mirror.example/" + object.spec.containers[0].image }] : []"# } }],
    });
    for (kind, spec) in [
        ("MutatingAdmissionPolicy", spec),
        ("MutatingAdmissionPolicyBinding", json!({ "policyName": "mirror" })),
    ] {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let resource = ApiResource::from_gvk(&kind);
        let object = DynamicObject::new("mirror", &resource).data(json!({ "spec": spec }));
        let api = Api::<DynamicObject>::all_with(webhook.namespace.client(), &resource);
        api.create(&PostParams::default(), &object).await.unwrap();
    }
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
