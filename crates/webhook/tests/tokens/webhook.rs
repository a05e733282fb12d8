//! The whole webhook in this process, with the shipped rights, and what asks it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config as ClientConfig, ResourceExt};
use migrations_api::Migrator;
use migrations_api::names::{OPERATOR_NAMESPACE, SERVING_SECRET};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_protocol::{Answer, QUESTION_PATH, TOKEN_AUDIENCE};
use migrations_testkit::builders::{migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace, free_ports};
use migrations_webhook::config::Config;
use migrations_webhook::run_with;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use ureq::tls::{RootCerts, TlsConfig};

use crate::proxy::Proxy;

const ACCOUNT: &str = "migrations-webhook";

/// A webhook that serves, and a namespace with a Migrator `shop`.
pub(crate) struct Webhook {
    pub(crate) namespace: TestNamespace,
    pub(crate) api: Proxy,
    plane: &'static ControlPlane,
    pub(crate) question_port: u16,
    _end: Trigger,
}

impl Webhook {
    pub(crate) async fn start() -> Self {
        let plane = ControlPlane::shared().await;
        let namespace = plane.namespace().await;
        namespace.create(&migrator("shop").selecting("app", "shop")).await;
        Self::serving(plane, namespace).await
    }

    /// Another replica, for the same namespace.
    pub(crate) async fn another(&self) -> Self {
        Self::serving(self.plane, self.namespace.clone()).await
    }

    async fn serving(plane: &'static ControlPlane, namespace: TestNamespace) -> Self {
        authority(plane).await;
        let mut config = client_config(plane).await;
        let api = Proxy::to(config.cluster_url.port_u16().unwrap()).await;
        config.cluster_url = format!("https://127.0.0.1:{}", api.port).parse().unwrap();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}"));
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);

        let client = Client::try_from(config).unwrap();
        let [question_port, admission_port, probe_port] = free_ports();
        let config = Config::parse_from(arguments(question_port, admission_port, probe_port));
        let (end, asked) = Shutdown::by_hand();
        tokio::spawn(async move { run_with(config, client, asked).await.unwrap() });
        until_served(question_port).await;
        let webhook = Self { namespace, api, plane, question_port, _end: end };
        webhook.until_it_knows_the_migrator().await;
        webhook
    }

    async fn until_it_knows_the_migrator(&self) {
        let pod = self.pod(&format!("probe-{}", self.question_port)).await;
        let token = self.token(&json!({}), Some(&pod)).await;
        while self.answer(&token, None).await.reason == "NoMigrator" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes into the Migrator's status that this key is done for these revisions.
    pub(crate) async fn done(&self, key: &str, revisions: &[&str]) {
        let done = json!({"key": key, "image": key, "how": "Succeeded", "revisions": revisions});
        let patch = Patch::Merge(json!({"status": {"done": [done]}}));
        self.namespace.api::<Migrator>().patch_status("shop", &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) async fn pod(&self, name: &str) -> Pod {
        self.namespace.create(&pod(name).label("app", "shop").container("app", "shop:2")).await
    }

    /// A token of the default account, for this audience where `changes` to the request don't name
    /// another; bound to `pod` where there is one.
    pub(crate) async fn token(&self, changes: &Value, pod: Option<&Pod>) -> String {
        token(&self.namespace, changes, pod).await
    }

    /// Asks about the Migrator in the webhook's test namespace; what comes back is status and body.
    pub(crate) async fn ask(&self, token: &str) -> (u16, String) {
        ask(self.plane, self.question_port, token, &self.question(None)).await
    }

    /// The answer to who is answered, and knows the answer `seen`.
    pub(crate) async fn answer(&self, token: &str, seen: Option<&str>) -> Answer {
        let question = self.question(seen);
        let (status, body) = ask(self.plane, self.question_port, token, &question).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn question(&self, seen: Option<&str>) -> Value {
        question(self.namespace.name(), seen)
    }

    /// Where the control plane keeps the key that it signs tokens with.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.plane.kubeconfig().with_file_name("tls.key")
    }
}

/// A token of the default account of a namespace: see [`Webhook::token`].
pub(crate) async fn token(namespace: &TestNamespace, changes: &Value, pod: Option<&Pod>) -> String {
    let bound =
        pod.map(|pod| json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()}));
    let mut request =
        json!({"metadata": {}, "spec": {"audiences": [TOKEN_AUDIENCE], "boundObjectRef": bound}});
    json_patch::merge(&mut request, changes);
    let request: TokenRequest = serde_json::from_value(request).unwrap();
    let accounts: Api<ServiceAccount> = namespace.api();
    let made = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

/// A question about Migrator `shop` of that namespace.
pub(crate) fn question(namespace: &str, seen: Option<&str>) -> Value {
    let container = json!({"name": "app", "image": "shop:2"});
    json!({"namespace": namespace, "migrator": "shop", "containers": [container], "seen": seen})
}

/// Asks a webhook on loopback.
pub(crate) async fn ask(plane: &ControlPlane, port: u16, token: &str, question: &Value) -> (u16, String) {
    let authority = authority(plane).await;
    let trusted = ureq::tls::Certificate::from_pem(authority.as_bytes()).unwrap();
    let question = question.to_string();
    let (url, token) = (format!("https://127.0.0.1:{port}{QUESTION_PATH}"), format!("Bearer {token}"));
    let asked = tokio::task::spawn_blocking(move || {
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(1)))
            .build()
            .into();
        let mut response = agent.post(url).header("authorization", token).send(question).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    });
    asked.await.unwrap()
}

/// The command line of a webhook on these ports.
pub(crate) fn arguments(question: u16, admission: u16, probes: u16) -> Vec<String> {
    vec![
        "migrations-webhook".to_owned(),
        "--waiter-image=waiter:1".to_owned(),
        format!("--question-port={question}"),
        format!("--admission-port={admission}"),
        format!("--probe-port={probes}"),
    ]
}

/// Installs the webhook's account and certificate, once; returns what signed the certificate.
pub(crate) async fn authority(plane: &ControlPlane) -> String {
    static INSTALLED: OnceCell<String> = OnceCell::const_new();
    let install = || async {
        plane.install_account(ACCOUNT).await;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let bytes = |text: String| ByteString(text.into_bytes());
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": SERVING_SECRET},
            "data": {"tls.crt": bytes(made.cert.pem()), "tls.key": bytes(made.signing_key.serialize_pem())},
        }))
        .unwrap();
        let secrets: Api<Secret> = Api::namespaced(plane.client(), OPERATOR_NAMESPACE);
        secrets.create(&PostParams::default(), &secret).await.unwrap();
        made.cert.pem()
    };
    INSTALLED.get_or_init(install).await.clone()
}

async fn client_config(plane: &ControlPlane) -> ClientConfig {
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
    ClientConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

pub(crate) async fn until_served(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
