//! From the start to the end of the whole webhook, against an API server in memory that answers
//! lists and watches: what it waits for, what it forgives, and that it writes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Parser;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_protocol::{Answer, QUESTION_PATH, TOKEN_AUDIENCE};
use migrations_testkit::cluster::free_ports;
use migrations_webhook::config::Config;
use migrations_webhook::{RunError, run_with};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use ureq::tls::{RootCerts, TlsConfig};

/// What a collection answers: a list, or an HTTP error.
#[derive(Clone, Debug)]
enum Collection {
    Items(Vec<Value>),
    Error(u16),
}

/// Lists as they stand when they are asked for; a watch then ends as soon as anything changes, so
/// that the client lists again.
#[derive(Clone)]
struct ApiServer {
    collections: Arc<Mutex<std::collections::HashMap<&'static str, Collection>>>,
    changes: watch::Sender<()>,
    methods: Arc<Mutex<Vec<Method>>>,
}

impl ApiServer {
    fn new() -> Self {
        let missing = |plural| (plural, Collection::Items(Vec::new()));
        Self {
            collections: Arc::new(Mutex::new(
                [missing("migrators"), missing("secrets"), missing("services")].into(),
            )),
            changes: watch::Sender::new(()),
            methods: Arc::default(),
        }
    }

    fn set(&self, plural: &'static str, collection: Collection) {
        self.collections.lock().unwrap().insert(plural, collection);
        self.changes.send_replace(());
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let response = server.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        self.methods.lock().unwrap().push(request.method().clone());
        let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
        if plural == "tokenreviews" {
            return Response::builder()
                .status(201)
                .body(Full::from(review().to_string()).boxed_unsync())
                .unwrap();
        }
        if request.uri().query().unwrap_or_default().contains("watch=true") {
            let mut changes = self.changes.subscribe();
            let end = async move { changes.changed().await.ok() };
            let gone = futures::stream::once(end).map(|_| {
                let gone = json!({"type": "ERROR", "object": status(410)}).to_string() + "\n";
                Ok::<_, Infallible>(Frame::data(gone.into()))
            });
            return Response::new(StreamBody::new(gone).boxed_unsync());
        }
        let collection = self.collections.lock().unwrap().get(plural.as_str()).cloned();
        let (code, body) = match collection.unwrap_or(Collection::Error(404)) {
            Collection::Items(items) => {
                let metadata = json!({"resourceVersion": "1"});
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
            }
            Collection::Error(code) => (code, status(code)),
        };
        Response::builder().status(code).body(Full::from(body.to_string()).boxed_unsync()).unwrap()
    }
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "test", "reason": "Test", "code": code})
}

/// Every token is that of a Pod in namespace `default`.
fn review() -> Value {
    json!({"metadata": {}, "spec": {}, "status": {
        "authenticated": true, "audiences": [TOKEN_AUDIENCE],
        "user": {"username": "system:serviceaccount:default:default", "extra": {
            "authentication.kubernetes.io/pod-name": ["shop-1"], "authentication.kubernetes.io/pod-uid": ["u-1"],
        }},
    }})
}

fn secret() -> Value {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let bytes = |text: String| serde_json::to_value(k8s_openapi::ByteString(text.into_bytes())).unwrap();
    json!({
        "metadata": {"name": "migrations-webhook-tls", "namespace": "migrations-operator"},
        "data": {"tls.crt": bytes(generated.cert.pem()), "tls.key": bytes(generated.signing_key.serialize_pem())},
    })
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn shop() -> Value {
    object("shop", &json!({"selector": {"matchLabels": {"app": "shop"}}}))
}

fn shops_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop-1", "labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "shop:2"}]},
    })
}

struct Webhook {
    end: Trigger,
    ended: JoinHandle<Result<(), RunError>>,
    ports: [u16; 3],
}

impl Webhook {
    fn start(server: &ApiServer) -> Self {
        Self::start_with(server, &["--shutdown-delay=1"])
    }

    fn start_with(server: &ApiServer, arguments: &[&str]) -> Self {
        let ports @ [probes, admission, question] = free_ports();
        let line = [
            "migrations-webhook".to_owned(),
            "--waiter-image=waiter:1".to_owned(),
            format!("--probe-port={probes}"),
            format!("--admission-port={admission}"),
            format!("--question-port={question}"),
        ];
        let config = Config::parse_from(line.into_iter().chain(arguments.iter().map(ToString::to_string)));
        let (end, asked) = Shutdown::by_hand();
        let ended = tokio::spawn(run_with(config, server.client(), asked));
        Self { end, ended, ports }
    }

    async fn readiness(&self) -> String {
        self.probe("/readyz").await
    }

    /// What the port of the probes says; nothing before it is served.
    async fn probe(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.ports[0])).await else {
            return String::new();
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    async fn until_it_counts(&self, line: &str) {
        let counts = async {
            while !self.probe("/metrics").await.lines().any(|told| told == line) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), counts).await;
        assert!(told.is_ok(), "never {line}:\n{}", self.probe("/metrics").await);
    }

    async fn until_it_says(&self, readiness: &str) {
        let says = async {
            while self.readiness().await != readiness {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), says).await;
        assert!(told.is_ok(), "says {:?}, never {readiness:?}", self.readiness().await);
    }

    /// Asks about a Migrator of namespace `default`, trusting the certificate in `secret`.
    async fn ask(&self, secret: &Value, migrator: &str) -> Answer {
        self.ask_by(&trusting(secret), migrator).await.unwrap()
    }

    async fn ask_by(&self, agent: &ureq::Agent, migrator: &str) -> Result<Answer, ureq::Error> {
        self.ask_again(agent, migrator, None).await
    }

    /// By a waiter that has the answer of that version.
    async fn ask_again(
        &self,
        agent: &ureq::Agent,
        migrator: &str,
        seen: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let (agent, url) = (agent.clone(), format!("https://localhost:{}{QUESTION_PATH}", self.ports[2]));
        let containers = json!([{"name": "app", "image": "a"}]);
        let question =
            json!({"namespace": "default", "migrator": migrator, "containers": containers, "seen": seen});
        let body = tokio::task::spawn_blocking(move || {
            let asking = agent.post(url).header("authorization", "Bearer e30.e30.c2ln");
            asking.send(question.to_string())?.body_mut().read_to_string()
        });
        Ok(serde_json::from_str(&body.await.unwrap()?).unwrap())
    }

    /// Has a Pod of namespace `default` admitted; returns the patch.
    async fn admit(&self, secret: &Value, pod: &Value) -> Result<Vec<Value>, ureq::Error> {
        let (agent, url) = (trusting(secret), format!("https://localhost:{}/admit", self.ports[1]));
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "CREATE", "namespace": "default", "object": pod, "userInfo": {},
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
        }});
        let asked = move || agent.post(url).send(review.to_string())?.body_mut().read_to_string();
        let body = tokio::task::spawn_blocking(asked).await.unwrap()?;
        let response = serde_json::from_str::<Value>(&body).unwrap()["response"].take();
        assert_eq!(response["allowed"], true, "{response}");
        let patch = response["patch"].as_str().map(|patch| STANDARD.decode(patch).unwrap());
        Ok(patch.map(|patch| serde_json::from_slice(&patch).unwrap()).unwrap_or_default())
    }

    async fn serves(&self, port: usize) -> bool {
        TcpStream::connect(("127.0.0.1", self.ports[port])).await.is_ok()
    }
}

/// A client that keeps its connection open.
fn trusting(secret: &Value) -> ureq::Agent {
    let chain: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["tls.crt"].clone()).unwrap();
    let trusted = ureq::tls::Certificate::from_pem(&chain.0).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
    ureq::Agent::config_builder().tls_config(tls).proxy(None).build().into()
}

const READY: &str = "ok\n";

#[tokio::test]
async fn it_is_ready_once_it_has_a_certificate_and_all_migrators() {
    let server = ApiServer::new();
    server.set("migrators", Collection::Error(404));
    let webhook = Webhook::start(&server);
    webhook.until_it_says("not ready: serving certificate, list of Migrators, listeners\n").await;
    assert!(!webhook.serves(1).await && !webhook.serves(2).await);

    server.set("secrets", Collection::Items(vec![secret()]));
    webhook.until_it_says("not ready: list of Migrators, listeners\n").await;

    server.set("migrators", Collection::Items(Vec::new()));
    webhook.until_it_says(READY).await;
    assert!(webhook.serves(1).await && webhook.serves(2).await);
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_waited_for() {
    let server = ApiServer::new();
    let mut broken = secret();
    broken["data"]["tls.key"] = secret()["data"]["tls.key"].clone();
    server.set("secrets", Collection::Items(vec![broken]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says("not ready: serving certificate, listeners\n").await;
    server.set("secrets", Collection::Items(vec![secret()]));
    webhook.until_it_says(READY).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_under_open_connections_and_outlives_its_secret() {
    let server = ApiServer::new();
    let (first, second) = (secret(), secret());
    server.set("secrets", Collection::Items(vec![first.clone()]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says(READY).await;
    let open = trusting(&first);
    webhook.ask_by(&open, "shop").await.unwrap();

    server.set("secrets", Collection::Items(vec![second.clone()]));
    let replaced = async {
        while webhook.ask_by(&trusting(&second), "shop").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), replaced).await.expect("it hears of the new one");
    webhook.ask_by(&open, "shop").await.expect("its connection is open still");
    webhook.ask_by(&trusting(&first), "shop").await.expect_err("a new one isn't, by the old certificate");

    let mut spoilt = second.clone();
    spoilt["data"]["tls.key"] = first["data"]["tls.key"].clone();
    for found in [vec![], vec![spoilt]] {
        let asked = || server.methods.lock().unwrap().len();
        let before = asked();
        server.set("secrets", Collection::Items(found));
        // Three lists and three watches: what was set has been read.
        let read = async {
            while asked() < before + 6 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("it lists again");
        webhook.ask(&second, "shop").await;
        webhook.ask_by(&open, "shop").await.expect("its connection is open still");
        assert_eq!(webhook.readiness().await, READY);
    }
}

#[tokio::test]
async fn an_api_server_that_fails_later_does_not_make_it_unready() {
    let server = ApiServer::new();
    server.set("secrets", Collection::Items(vec![secret()]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says(READY).await;
    for plural in ["migrators", "secrets", "services"] {
        server.set(plural, Collection::Error(503));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(webhook.readiness().await, READY);
    assert!(webhook.serves(1).await);
}

#[tokio::test]
async fn asked_to_end_it_is_unready_and_serves_whoever_comes_until_the_delay_is_over() {
    let server = ApiServer::new();
    let secret = secret();
    server.set("secrets", Collection::Items(vec![secret.clone()]));
    server.set("migrators", Collection::Items(vec![shop()]));
    let webhook = Webhook::start_with(&server, &["--shutdown-delay=3"]);
    webhook.until_it_says(READY).await;
    let asked_to_end = Instant::now();
    webhook.end.request();
    webhook.until_it_says("not ready: listeners\n").await;
    // Clients are still sent here, and each comes on a connection of its own.
    let mut rounds = 0;
    while asked_to_end.elapsed() < Duration::from_secs(2) {
        assert_eq!(webhook.ask(&secret, "shop").await.reason, "Pending");
        assert!(!webhook.admit(&secret, &shops_pod()).await.unwrap().is_empty());
        assert_eq!(webhook.readiness().await, "not ready: listeners\n");
        rounds += 1;
    }
    assert!(rounds > 0);
    assert!(!webhook.ended.is_finished());
    let ended = tokio::time::timeout(Duration::from_secs(20), webhook.ended).await;
    ended.expect("it ends").unwrap().unwrap();
    assert!(asked_to_end.elapsed() >= Duration::from_secs(3));
}

/// What the command line says reaches the waiter's.
#[tokio::test]
async fn a_waiter_is_given_the_timeout_that_the_webhook_was_started_with() {
    for (arguments, expected) in [(vec![], None), (vec!["--waiter-timeout=900"], Some("--timeout=900"))] {
        let server = ApiServer::new();
        let secret = secret();
        server.set("secrets", Collection::Items(vec![secret.clone()]));
        server.set("migrators", Collection::Items(vec![shop()]));
        let webhook = Webhook::start_with(&server, &arguments);
        webhook.until_it_says(READY).await;
        let patch = json!(webhook.admit(&secret, &shops_pod()).await.unwrap()).to_string();
        assert!(patch.contains("--migrator=shop"), "{patch}");
        let timeout = patch.split('"').find(|word| word.starts_with("--timeout"));
        assert_eq!(timeout, expected);
    }
}

#[tokio::test]
async fn asked_to_end_before_it_serves_it_ends_at_once() {
    let webhook = Webhook::start(&ApiServer::new());
    webhook.until_it_says("not ready: serving certificate, listeners\n").await;
    webhook.end.request();
    tokio::time::timeout(Duration::from_secs(1), webhook.ended).await.expect("it ends").unwrap().unwrap();
}

#[tokio::test]
async fn migrators_are_followed_whatever_the_others_look_like() {
    let server = ApiServer::new();
    let secret = secret();
    server.set("secrets", Collection::Items(vec![secret.clone()]));
    server.set("migrators", Collection::Items(vec![object("broken", &json!("nonsense")), shop()]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says(READY).await;
    assert_eq!(webhook.ask(&secret, "shop").await.reason, "Pending");
    assert_eq!(webhook.ask(&secret, "broken").await.reason, "InvalidSpec");

    server.set("migrators", Collection::Items(Vec::new()));
    let gone = async {
        while webhook.ask(&secret, "shop").await.reason != "NoMigrator" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it hears of the deletion");
}

#[tokio::test]
async fn it_counts_what_it_did() {
    let server = ApiServer::new();
    let secret = secret();
    server.set("secrets", Collection::Items(vec![secret.clone()]));
    server.set("migrators", Collection::Items(vec![shop()]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says(READY).await;
    webhook.admit(&secret, &shops_pod()).await.unwrap();
    webhook.admit(&secret, &json!({"metadata": {"name": "web"}})).await.unwrap();
    let version = webhook.ask(&secret, "shop").await.version;
    for line in [
        "migrations_admissions_total{outcome=\"Injected\"} 1",
        "migrations_admissions_total{outcome=\"Untouched\"} 1",
        "migrations_admission_duration_seconds_count 2",
        "migrations_questions_answered_total{verdict=\"Wait\"} 1",
        "migrations_questions_held 0",
        "migrations_token_reviews_total{result=\"Accepted\"} 1",
    ] {
        webhook.until_it_counts(line).await;
    }
    let agent = trusting(&secret);
    let (held, ()) = tokio::join!(webhook.ask_again(&agent, "shop", Some(&version)), async {
        webhook.until_it_counts("migrations_questions_held 1").await;
        server.set("migrators", Collection::Items(Vec::new()));
    });
    assert_eq!(held.unwrap().reason, "NoMigrator");
    webhook.until_it_counts("migrations_questions_held 0").await;
}

#[tokio::test]
async fn it_only_ever_reads() {
    let server = ApiServer::new();
    server.set("secrets", Collection::Items(vec![secret()]));
    let webhook = Webhook::start(&server);
    webhook.until_it_says(READY).await;
    assert!(server.methods.lock().unwrap().iter().all(|method| method == Method::GET));
}
