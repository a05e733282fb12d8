//! Certificates are replaced, lost and spoiled while clients go on: two controllers, a server that
//! is never restarted, and three kinds of clients on a real API server. Years are seconds here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{Config, Event, watcher};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Api, Client, ResourceExt};
use migrations_api::names::{
    CA_BUNDLE_CONFIG_MAP, CA_BUNDLE_KEY, CA_SECRET, OPERATOR_NAMESPACE, REQUIRED_CONFIGURATION,
    SERVING_SECRET, WEBHOOK_SERVICE,
};
use migrations_controller::certificates::{CaBundle, CertificateKeeper, ensure_bundle};
use migrations_controller::metrics::Metrics;
use migrations_controller::watch::Guarded;
use migrations_core::certificates::{Lifetimes, service_names};
use migrations_process::serve::{Limits, json as json_response, read_body, serve, text};
use migrations_process::shutdown::Shutdown;
use migrations_process::tls::Certificate;
use migrations_testkit::builders::{migrator, pod};
use migrations_testkit::cluster::{ControlPlane, TestNamespace, until};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

const LIFETIMES: Lifetimes = Lifetimes {
    authority: SignedDuration::from_secs(24),
    leaf: SignedDuration::from_secs(12),
    skew: SignedDuration::ZERO,
    arrival: SignedDuration::from_secs(3),
    retention: SignedDuration::from_secs(4),
};

/// How late a waiter's Pod gets a new bundle, as with a kubelet; less than the arrival.
const LATE: Duration = Duration::from_secs(1);

const CONTROLLER: &str = "migrations-controller";

#[tokio::test(flavor = "multi_thread")]
async fn no_client_notices_that_certificates_are_replaced_lost_or_spoiled() {
    let plane = ControlPlane::start().await;
    plane.install_account(CONTROLLER).await;
    let shop = plane.namespace().await;
    ship_configuration(plane.client()).await;

    // The first authority is middle-aged, so that the test sees it replaced soon.
    let middle_age = SignedDuration::from_secs(12);
    let (mut first, _) = keeper(&plane, &shop);
    first.look(Timestamp::now() - middle_age).await.unwrap();
    for _ in 0..2 {
        let (keeper, bundle) = keeper(&plane, &shop);
        tokio::spawn(keeper.run());
        tokio::spawn(publish(plane.client(), shop.name().to_owned(), bundle));
    }
    let (port, served) = start_server(&plane).await;
    plane.expose(OPERATOR_NAMESPACE, WEBHOOK_SERVICE, 443, port).await;
    let trusted = late_bundle(&shop).await;
    let clients = Clients::default();
    clients.start(&shop, port, trusted, &served).await;

    let secrets: Api<Secret> = Api::namespaced(plane.client(), OPERATOR_NAMESPACE);
    let mut authority = served_by(&secrets, "").await;
    for round in ["replaced", "replaced again"] {
        authority = served_by(&secrets, &authority).await;
        clients.well(round);
    }
    secrets.delete(CA_SECRET, &DeleteParams::default()).await.unwrap();
    authority = served_by(&secrets, &authority).await;
    clients.well("the authority deleted");

    spoil(&secrets, CA_SECRET).await;
    served_by(&secrets, &authority).await;
    clients.well("the authority spoiled");

    secrets.delete(SERVING_SECRET, &DeleteParams::default()).await.unwrap();
    served_by(&secrets, "").await;
    clients.well("the leaf deleted");

    spoil(&secrets, SERVING_SECRET).await;
    served_by(&secrets, "").await;
    // The bundle has one certificate again, and it is still the serving one.
    let maps = shop.api::<ConfigMap>();
    until(&maps, "the old authorities to be forgotten", |maps| {
        let map = maps.iter().find(|map| map.name_any() == CA_BUNDLE_CONFIG_MAP)?;
        let bundle = map.data.as_ref()?.get(CA_BUNDLE_KEY)?;
        (bundle.matches("BEGIN").count() == 1).then_some(())
    })
    .await;
    clients.well("the leaf spoiled");
    clients.end().await;
}

/// A controller's, with the rights that the manifests give it.
fn keeper(
    plane: &ControlPlane,
    shop: &TestNamespace,
) -> (CertificateKeeper, watch::Receiver<Option<CaBundle>>) {
    let (migrators, mut writer) = reflector::store::<Guarded>();
    let one = migrator("shop").namespace(shop.name()).selecting("app", "shop").json();
    for event in [Event::Init, Event::InitApply(serde_json::from_value(one).unwrap()), Event::InitDone] {
        writer.apply_watcher_event(&event);
    }
    let (told, bundle) = watch::channel(None);
    let client = plane.client_as(OPERATOR_NAMESPACE, CONTROLLER);
    (
        CertificateKeeper::new(client, OPERATOR_NAMESPACE, LIFETIMES, migrators, told, Metrics::default()),
        bundle,
    )
}

async fn ship_configuration(client: Client) {
    let configuration = json!({ "metadata": { "name": REQUIRED_CONFIGURATION } });
    let configuration: MutatingWebhookConfiguration = serde_json::from_value(configuration).unwrap();
    Api::all(client).create(&PostParams::default(), &configuration).await.unwrap();
}

/// Writes the bundle wherever clients look, whenever it changes.
async fn publish(client: Client, namespace: String, mut bundle: watch::Receiver<Option<CaBundle>>) {
    let configurations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    while let Ok(()) = bundle.changed().await {
        let bundle = bundle.borrow_and_update().clone().unwrap();
        let entry = json!({
            "name": "pods.migrations.coderanger.net", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "timeoutSeconds": 5, "failurePolicy": "Fail",
            "clientConfig": {
                "service": { "namespace": OPERATOR_NAMESPACE, "name": WEBHOOK_SERVICE, "path": "/admit" },
                "caBundle": bundle.base64(),
            },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
        });
        let entries = Patch::Merge(json!({ "webhooks": [entry] }));
        configurations.patch(REQUIRED_CONFIGURATION, &PatchParams::default(), &entries).await.unwrap();
        ensure_bundle(&client, &namespace, &bundle).await.unwrap();
    }
}

/// The server of a replica: its certificate follows the Secret, as the webhook's does. Also how many
/// requests it has answered.
async fn start_server(plane: &ControlPlane) -> (u16, Arc<AtomicUsize>) {
    let certificate = Certificate::default();
    let secrets: Api<Secret> = Api::namespaced(plane.client(), OPERATOR_NAMESPACE);
    let only = Config::default().fields(&format!("metadata.name={SERVING_SECRET}"));
    let (loaded, mut in_use) = watch::channel(false);
    tokio::spawn({
        let certificate = certificate.clone();
        async move {
            let mut events = Box::pin(watcher(secrets, only).default_backoff());
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(secret) | Event::InitApply(secret)) = event {
                    let field =
                        |key| secret.data.as_ref().and_then(|it| it.get(key)).map(|it| it.0.as_slice());
                    let (Some(chain), Some(key)) = (field("tls.crt"), field("tls.key")) else { continue };
                    loaded.send_if_modified(|loaded| {
                        *loaded |= certificate.replace(chain, key).is_ok();
                        *loaded
                    });
                }
            }
        }
    });
    in_use.wait_for(|loaded| *loaded).await.unwrap();

    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let hour = Duration::from_hours(1);
    let limits = Limits {
        connections: 100,
        per_source: 100,
        streams: Some(100),
        body: 1024 * 1024,
        memory: usize::MAX,
        memory_per_source: usize::MAX,
        handshake: hour,
        headers: hour,
        request: hour,
        idle: hour,
        drain: hour,
    };
    let answered = Arc::new(AtomicUsize::new(0));
    let handler = {
        let answered = Arc::clone(&answered);
        move |request| answer(request, Arc::clone(&answered))
    };
    let (end, ended) = Shutdown::by_hand();
    let tls = certificate.server_config().unwrap();
    tokio::spawn(async move {
        serve(listener, tls, limits, ended, handler).await;
        drop(end);
    });
    (port, answered)
}

/// Admits every Pod, and says "ok" to everyone else.
async fn answer(request: Request<Incoming>, answered: Arc<AtomicUsize>) -> Response<Full<Bytes>> {
    if request.method() == http::Method::GET {
        return text(StatusCode::OK, "ok");
    }
    let body = read_body(request.into_body(), 1 << 20, Duration::from_secs(10)).await.unwrap();
    let review: Value = serde_json::from_slice(&body).unwrap();
    answered.fetch_add(1, Ordering::Relaxed);
    let response = json!({ "uid": review["request"]["uid"], "allowed": true });
    json_response(
        json!({ "apiVersion": review["apiVersion"], "kind": review["kind"], "response": response })
            .to_string(),
    )
}

/// The bundle of the namespace as a Pod there finds it: always late.
async fn late_bundle(shop: &TestNamespace) -> watch::Receiver<String> {
    let (set, mut bundle) = watch::channel(String::new());
    let maps = shop.api::<ConfigMap>();
    tokio::spawn(async move {
        let mut events = Box::pin(watcher(maps, Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            if let Ok(Event::Apply(map) | Event::InitApply(map)) = event
                && map.name_any() == CA_BUNDLE_CONFIG_MAP
            {
                tokio::time::sleep(LATE).await;
                set.send_replace(map.data.unwrap().remove(CA_BUNDLE_KEY).unwrap());
            }
        }
    });
    bundle.wait_for(|bundle| !bundle.is_empty()).await.unwrap();
    bundle
}

/// Clients of three kinds, and what has gone wrong for them.
#[derive(Clone, Default)]
struct Clients {
    ended: Arc<AtomicBool>,
    faults: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    admissions: Arc<AtomicUsize>,
}

impl Clients {
    /// Starts them, once the API server knows its webhook.
    async fn start(
        &self,
        shop: &TestNamespace,
        port: u16,
        trusted: watch::Receiver<String>,
        served: &AtomicUsize,
    ) {
        while served.load(Ordering::Relaxed) == 0 {
            let _ = create_a_pod(shop).await;
        }
        let all = self.clone();
        let shop = shop.clone();
        tokio::spawn(async move {
            while !all.ended.load(Ordering::Relaxed) {
                let admitted = create_a_pod(&shop).await.map(drop).map_err(|error| error.to_string());
                all.count(&all.admissions, "an admission", admitted);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let (all, bundle) = (self.clone(), trusted.clone());
        // Threads, so that a test that fails doesn't wait for them.
        std::thread::spawn(move || {
            while !all.ended.load(Ordering::Relaxed) {
                // In a statement of its own: a borrow that lasts while the server is waited for would
                // block the worker that publishes the next bundle, and with it perhaps the server.
                let trusted = bundle.borrow().clone();
                let asked = connect(port, &trusted).and_then(|mut stream| ask(&mut stream));
                all.count(&all.connections, "a new connection", asked);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let all = self.clone();
        std::thread::spawn(move || {
            let trusted = trusted.borrow().clone();
            let mut stream = connect(port, &trusted).unwrap();
            while !all.ended.load(Ordering::Relaxed) {
                all.count(&all.held, "the held connection", ask(&mut stream));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }

    fn count(&self, well: &AtomicUsize, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => drop(well.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.faults.lock().unwrap().push(format!("{what}: {error}")),
        }
    }

    fn well(&self, after: &str) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "after {after}: {} faults, first: {}", faults.len(), faults[0]);
    }

    /// Each has gone on to the end.
    async fn end(&self) {
        let each = [&self.admissions, &self.connections, &self.held];
        let before = each.map(|counter| counter.load(Ordering::Relaxed));
        let more = async {
            while each.iter().zip(before).any(|(counter, before)| counter.load(Ordering::Relaxed) <= before) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), more).await.unwrap();
        self.ended.store(true, Ordering::Relaxed);
        self.well("all");
        assert!(before.iter().all(|many| *many > 100), "they have hardly asked: {before:?}");
    }
}

async fn create_a_pod(shop: &TestNamespace) -> Result<Pod, kube::Error> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pod = pod("probe").namespace(shop.name()).container("app", "shop:1").build();
    shop.api().create(&dry_run, &pod).await
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A handshake that knows of none before it.
fn connect(port: u16, bundle: &str) -> Result<Stream, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), server_name()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
    }
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    Ok(StreamOwned::new(connection, stream))
}

fn ask(stream: &mut Stream) -> Result<(), String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\nok") {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => return Err(format!("closed after {answer:?}")),
            read => answer += &String::from_utf8_lossy(&buffer[..read]),
        }
    }
    Ok(())
}

/// Waits until an authority other than `before` signs and serves; returns its certificate.
async fn served_by(secrets: &Api<Secret>, before: &str) -> String {
    let authority = until(secrets, "another authority that signs", |secrets| {
        find(secrets, CA_SECRET).filter(|it| it.starts_with("-----BEGIN") && it != before)
    })
    .await;
    until(secrets, "a leaf by it", |secrets| {
        find(secrets, SERVING_SECRET).filter(|leaf| is_by(leaf, &authority)).map(drop)
    })
    .await;
    authority
}

fn is_by(leaf: &str, authority: &str) -> bool {
    let Ok(leaf) = CertificateDer::from_pem_slice(leaf.as_bytes()) else { return false };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    verifier.verify_server_cert(&leaf, &[], &server_name(), &[], UnixTime::now()).is_ok()
}

fn server_name() -> ServerName<'static> {
    ServerName::try_from(service_names(OPERATOR_NAMESPACE).remove(0)).unwrap()
}

/// The certificate that a Secret is about, if it is there and has one.
fn find(secrets: &[Secret], name: &str) -> Option<String> {
    let secret = secrets.iter().find(|secret| secret.name_any() == name)?;
    let data = secret.data.as_ref()?;
    let certificate = data.get(CA_BUNDLE_KEY).or_else(|| data.get("tls.crt"))?;
    String::from_utf8(certificate.0.clone()).ok()
}

/// Overwrites every field with garbage.
async fn spoil(secrets: &Api<Secret>, name: &str) {
    let mut secret = secrets.get(name).await.unwrap();
    for bytes in secret.data.as_mut().unwrap().values_mut() {
        *bytes = ByteString(b"garbage".to_vec());
    }
    let data = Patch::Merge(json!({ "data": secret.data }));
    secrets.patch(name, &PatchParams::default(), &data).await.unwrap();
}
