//! The webhook's listeners in this process, on loopback and over real TLS, with a view that the test
//! feeds: no cluster.

use std::sync::Arc;
use std::time::Duration;

use kube::core::DeserializeGuard;
use migrations_api::Migrator;
use migrations_core::inject::{Resources, UnsupportedPods};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_process::tls::Certificate;
use migrations_protocol::TOKEN_AUDIENCE;
use migrations_testkit::recording::RecordingServer;
use migrations_webhook::admission::Admission;
use migrations_webhook::held::Held;
use migrations_webhook::metrics::Metrics;
use migrations_webhook::question::Questions;
use migrations_webhook::serving::serve_both;
use migrations_webhook::settings::InForce;
use migrations_webhook::tokens::Tokens;
use migrations_webhook::turns::Turns;
use migrations_webhook::view::View;
use prometheus_client::encoding::text::encode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use ureq::tls::{RootCerts, TlsConfig};

/// The token of the Pod `shop-1` in namespace `default`: what the API server knows counts, not what is in it.
pub(crate) const TOKEN: &str = "e30.e30.c2ln";

/// The uid of that Pod.
pub(crate) const POD_UID: &str = "uid-of-shop-1";

/// The listeners, and how to feed and end them.
pub(crate) struct Shell {
    pub(crate) view: View,
    metrics: Metrics,
    /// What tokens are verified by.
    pub(crate) api: RecordingServer,
    pub(crate) certificate: Certificate,
    pub(crate) end: Trigger,
    pub(crate) served: JoinHandle<()>,
    pub(crate) admission: u16,
    pub(crate) question: u16,
    authority: String,
}

impl Shell {
    pub(crate) async fn start() -> Self {
        Self::for_waiters(100).await
    }

    /// With room for that many waiters.
    pub(crate) async fn for_waiters(waiters: usize) -> Self {
        let (view, certificate, metrics) = (View::default(), Certificate::default(), Metrics::default());
        let (chain, key) = pair();
        certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
        let resources = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
        let unsupported = UnsupportedPods::default();
        let settings =
            InForce::new("migrations-operator", "waiter:1".to_owned(), resources, unsupported, None);
        let (trigger, end) = Shutdown::by_hand();
        let api = RecordingServer::new();
        api.know_token(TOKEN, token_of("default"));
        let tokens = Tokens::new(api.client(), metrics.clone());
        let admissions = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let questions = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (admission, question) =
            (admissions.local_addr().unwrap().port(), questions.local_addr().unwrap().port());
        let served = {
            let (view, certificate, metrics) = (view.clone(), certificate.clone(), metrics.clone());
            tokio::spawn(async move {
                let turns = Turns::default();
                let admission = Admission { view: view.clone(), settings, turns, metrics: metrics.clone() };
                let question = Questions { view, tokens, held: Held::default(), end: end.clone(), metrics };
                serve_both(&certificate, &end, waiters, (admissions, admission), (questions, question))
                    .await
                    .unwrap();
            })
        };
        Self { view, metrics, api, certificate, end: trigger, served, admission, question, authority: chain }
    }

    /// Puts a Migrator of namespace `default` into the view.
    pub(crate) fn apply(&self, name: &str, spec: &Value, status: &Value) {
        let object: DeserializeGuard<Migrator> = serde_json::from_value(json!({
            "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": status,
        }))
        .unwrap();
        self.view.apply(object);
    }

    /// Whether that line is in the metrics.
    pub(crate) fn counts(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.metrics.registry()).unwrap();
        text.lines().any(|told| told == line)
    }

    /// Posts to a listener as the Pod `shop-1`, on a connection of its own; what comes back is status and
    /// body.
    pub(crate) async fn post(&self, port: u16, path: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
        self.post_with(&format!("Bearer {TOKEN}"), port, path, body).await
    }

    /// The same with that header `authorization`; with none where it is empty.
    pub(crate) async fn post_with(
        &self,
        authorization: &str,
        port: u16,
        path: &str,
        body: impl Into<Vec<u8>>,
    ) -> (u16, String) {
        let authorization = authorization.to_owned();
        let (agent, url, body) = (self.agent(), format!("https://localhost:{port}{path}"), body.into());
        tokio::task::spawn_blocking(move || {
            // Asks before it sends: a refusal would get lost in a connection closed meanwhile.
            let mut request = agent.post(url).header("expect", "100-continue");
            if !authorization.is_empty() {
                request = request.header("authorization", authorization);
            }
            let mut response = request.send(&body[..]).unwrap();
            (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    /// A client that trusts the certificate that was served first.
    pub(crate) fn agent(&self) -> ureq::Agent {
        let trusted = ureq::tls::Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
        ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_mins(1)))
            .build()
            .into()
    }
}

/// What the API server says of the token of a Pod in `namespace`.
pub(crate) fn token_of(namespace: &str) -> Value {
    json!({
        "authenticated": true, "audiences": [TOKEN_AUDIENCE],
        "user": {"username": format!("system:serviceaccount:{namespace}:default"), "extra": {
            "authentication.kubernetes.io/pod-name": ["shop-1"], "authentication.kubernetes.io/pod-uid": [POD_UID],
        }},
    })
}

/// A certificate for `localhost` that is its own authority, and its key.
pub(crate) fn pair() -> (String, String) {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (generated.cert.pem(), generated.signing_key.serialize_pem())
}

/// A Migrator's spec that selects `app: shop`.
pub(crate) fn selecting_shop() -> Value {
    json!({"selector": {"matchLabels": {"app": "shop"}}})
}
