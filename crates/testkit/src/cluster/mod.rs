//! A real control plane without nodes: etcd, kube-apiserver and kube-controller-manager as plain
//! processes on loopback. Jobs, rollouts, garbage collection and admission are real; the test
//! plays scheduler and kubelet ([`TestNamespace`]).
//!
//! The programs come from the folder that `KUBEBUILDER_ASSETS` names.

mod account;
mod audit;
mod egress;
mod kubelet;
mod namespace;
mod process;
mod wait;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::Condition;
use kube::{Api, Client, Config, CustomResourceExt};
use migrations_api::Migrator;
use serde_json::json;
use tokio::sync::OnceCell;

pub use namespace::TestNamespace;
pub use wait::until;

use audit::AuditLog;
use process::Process;

/// Name of the one node. Nothing runs on it; Pods that a test starts are bound to it.
pub const NODE: &str = "node-1";

/// TEST-NET-1 (RFC 5737): no route leads there, so nothing that a test does can reach a stranger.
const SERVICE_ADDRESSES: &str = "192.0.2.0/24";

/// What the controller manager runs. Nothing that acts on nodes: the one node here never reports.
const CONTROLLERS: &str = "cronjob-controller,daemonset-controller,deployment-controller,\
    disruption-controller,garbage-collector-controller,job-controller,namespace-controller,\
    replicaset-controller,replicationcontroller-controller,root-ca-certificate-publisher-controller,\
    serviceaccount-controller,statefulset-controller,ttl-after-finished-controller";

/// How long the control plane may take to start on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A running control plane. It ends when this is dropped, or with the test process.
#[derive(Debug)]
pub struct ControlPlane {
    config: Config,
    kubeconfig: PathBuf,
    /// Where one is written.
    audit: Option<AuditLog>,
    /// Dropped in this order: clients of etcd before etcd, which owns the directory.
    processes: [Process; 3],
}

impl ControlPlane {
    /// The control plane that all tests of this process share. They keep apart by namespaces.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a control plane of the test's own, with the operator's resources installed.
    pub async fn start() -> Self {
        // Before the controllers start: the garbage collector looks for new kinds each 30 s only.
        Self::start_with(false, |client| async move { install_crds(&client).await }).await
    }

    /// The same, with an audit log; see [`Self::expect_rights_as_used`].
    pub async fn start_audited() -> Self {
        Self::start_with(true, |client| async move { install_crds(&client).await }).await
    }

    /// Starts a control plane of the test's own that doesn't know the operator's resources, until
    /// [`Self::install_crds`].
    pub async fn start_without_crds() -> Self {
        Self::start_with(false, |_| async {}).await
    }

    async fn start_with<F: Future<Output = ()>>(audited: bool, prepare: impl FnOnce(Client) -> F) -> Self {
        let assets = assets();
        let directory =
            tempfile::Builder::new().prefix("control-plane-").tempdir().expect("a directory").keep();
        let [etcd_port, peer_port, api_port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let files = Files::write(&directory, api_port);
        let start = |program: &str, args: &[String], owns_directory| {
            Process::start(&assets.join(program), args, &directory, owns_directory)
        };

        let etcd = start("etcd", &etcd_args(&directory, &etcd_url, peer_port), true);
        let audit = audited.then(|| AuditLog::in_directory(&directory));
        let mut arguments = api_server_args(&files, &etcd_url, api_port);
        arguments.push(egress::in_directory(&directory));
        arguments.extend(audit.iter().flat_map(|(_, arguments)| arguments.clone()));
        let api_server = start("kube-apiserver", &arguments, false);
        let mut started = [etcd, api_server];
        let client = Client::try_from(files.config.clone()).expect("a client");
        until_served(&client, "/readyz", &mut started).await;
        prepare(client.clone()).await;

        let [etcd, api_server] = started;
        let controllers = start("kube-controller-manager", &controllers_args(&files), false);
        let mut started = [controllers, api_server, etcd];
        until_served(&client, "/api/v1/namespaces/default/serviceaccounts/default", &mut started).await;
        add_node(client).await;
        let Files { config, kubeconfig, .. } = files;
        Self { config, kubeconfig, audit: audit.map(|(log, _)| log), processes: started }
    }

    /// A client that may do anything. Each test makes its own: a client lives on the runtime of the
    /// test that made it.
    pub fn client(&self) -> Client {
        Client::try_from(self.config.clone()).expect("a client")
    }

    /// A client with no more rights than a service account has.
    pub fn client_as(&self, namespace: &str, service_account: &str) -> Client {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{service_account}"));
        config.auth_info.impersonate_groups = Some(vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ]);
        Client::try_from(config).expect("a client")
    }

    /// A file for `kubectl --kubeconfig`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Installs the operator's resources.
    pub async fn install_crds(&self) {
        install_crds(&self.client()).await;
    }

    /// A new namespace, in which Pods can be created.
    pub async fn namespace(&self) -> TestNamespace {
        TestNamespace::made_by(self.client()).await
    }

    /// Makes `port` of a Service lead to `local_port` on loopback, so that the API server reaches a
    /// webhook that the test serves there.
    pub async fn expose(&self, namespace: &str, service: &str, port: u16, local_port: u16) {
        let client = self.client();
        let object = from_json::<Service>(json!({
            "metadata": { "name": service },
            "spec": { "ports": [{ "name": "test", "port": port }] },
        }));
        Api::namespaced(client.clone(), namespace)
            .create(&PostParams::default(), &object)
            .await
            .expect("a Service");
        let slice = from_json::<EndpointSlice>(json!({
            "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "ports": [{ "name": "test", "port": local_port }],
            "endpoints": [{ "addresses": [egress::THIS_MACHINE], "conditions": { "ready": true } }],
        }));
        Api::namespaced(client, namespace)
            .create(&PostParams::default(), &slice)
            .await
            .expect("an EndpointSlice");
    }

    /// What the control plane said last; for a test that doesn't understand it.
    pub fn last_output(&self) -> String {
        self.processes.each_ref().map(Process::last_output).join("\n")
    }
}

/// The operator's resources, as the types describe them.
async fn install_crds(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &Migrator::crd()).await.expect("the CRD is accepted");
    until(&crds, "the CRD to be served", |crds| {
        crds.iter().find(|crd| is_crd_established().matches_object(Some(crd))).map(drop)
    })
    .await;
}

async fn add_node(client: Client) {
    let node = from_json::<Node>(json!({ "metadata": { "name": NODE } }));
    Api::all(client).create(&PostParams::default(), &node).await.expect("a Node");
}

/// Where the programs are.
fn assets() -> PathBuf {
    const HINT: &str = "run `cargo verify`, or set KUBEBUILDER_ASSETS to a folder with etcd, \
        kube-apiserver and kube-controller-manager";
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| panic!("this test needs a control plane: {HINT}"));
    for program in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        assert!(folder.join(program).exists(), "there is no {program} in {}: {HINT}", folder.display());
    }
    folder
}

/// What the programs read, and how they are reached.
struct Files {
    certificate: String,
    key: String,
    tokens: String,
    kubeconfig: PathBuf,
    config: Config,
}

impl Files {
    /// One key pair serves TLS and signs the tokens of service accounts: nothing here is a secret.
    fn write(directory: &Path, api_port: u16) -> Self {
        const TOKEN: &str = "token-of-the-test";
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let write = |name: &str, content: &str| {
            let path = directory.join(name);
            fs::write(&path, content).expect("a file can be written");
            path.to_str().expect("a temporary directory is UTF-8").to_owned()
        };
        let server = format!("https://127.0.0.1:{api_port}");
        let certificate = write("tls.crt", &made.cert.pem());
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority": certificate } }],
            "users": [{ "name": "test", "user": { "token": TOKEN } }],
        });
        let mut config = Config::new(server.parse().expect("a URL"));
        config.root_cert = Some(vec![made.cert.der().to_vec()]);
        config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
        Self {
            certificate,
            key: write("tls.key", &made.signing_key.serialize_pem()),
            tokens: write("tokens.csv", &format!("{TOKEN},test,test,system:masters\n")),
            kubeconfig: write("kubeconfig", &kubeconfig.to_string()).into(),
            config,
        }
    }
}

fn etcd_args(directory: &Path, url: &str, peer_port: u16) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", directory.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // The data is gone with the test anyway.
        "--unsafe-no-fsync".to_owned(),
    ]
}

fn api_server_args(files: &Files, etcd_url: &str, port: u16) -> Vec<String> {
    let Files { certificate, key, tokens, .. } = files;
    vec![
        format!("--etcd-servers={etcd_url}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={certificate}"),
        format!("--tls-private-key-file={key}"),
        format!("--token-auth-file={tokens}"),
        "--authorization-mode=RBAC".to_owned(),
        format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"),
        // No server advertises itself, so none has to have an address that others can reach.
        "--endpoint-reconciler-type=none".to_owned(),
        "--advertise-address=192.0.2.1".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-account-key-file={certificate}"),
        "--allow-privileged=true".to_owned(),
        // Webhooks are called by the addresses behind a Service: nobody translates the Service's.
        "--enable-aggregator-routing=true".to_owned(),
    ]
}

fn controllers_args(files: &Files) -> Vec<String> {
    let Files { certificate, key, kubeconfig, .. } = files;
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        format!("--service-account-private-key-file={key}"),
        format!("--root-ca-file={certificate}"),
        format!("--controllers={CONTROLLERS}"),
    ]
}

/// Waits until `path` is answered with success.
async fn until_served<const N: usize>(client: &Client, path: &str, needed: &mut [Process; N]) {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        if client.request_text(request).await.is_ok() {
            return;
        }
        needed.iter_mut().for_each(Process::assert_running);
        let output = || needed.each_ref().map(Process::last_output).join("\n");
        assert!(Instant::now() < deadline, "{path} is not served after {START_TIMEOUT:?}:\n{}", output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Ports that nobody listens on, each given out once by this process. They are below those that the
/// system gives to outgoing connections, which would take some before the test does.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN_OUT: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            let number = GIVEN_OUT.fetch_add(1, Ordering::Relaxed);
            let number = std::process::id().wrapping_mul(97).wrapping_add(number) % 20_000;
            let port = 10_000 + u16::try_from(number).expect("less than 20,000");
            if TcpListener::bind(("0.0.0.0", port)).is_ok() {
                return port;
            }
        }
    })
}

fn from_json<K: serde::de::DeserializeOwned>(json: serde_json::Value) -> K {
    serde_json::from_value(json).expect("a well-formed object")
}
