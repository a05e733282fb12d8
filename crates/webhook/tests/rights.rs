//! The webhook's service account is refused nothing, and uses every right that the manifests give it.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use migrations_api::names;
use migrations_process::shutdown::Shutdown;
use migrations_protocol::QUESTION_PATH;
use migrations_testkit::cluster::{ControlPlane, free_ports};
use migrations_webhook::config::Config;
use migrations_webhook::run_with;
use serde_json::json;
use tokio::net::TcpStream;
use ureq::tls::{RootCerts, TlsConfig};

const WEBHOOK: &str = "migrations-webhook";

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_is_refused_nothing_and_uses_each_of_its_rights() {
    let plane = ControlPlane::start_audited().await;
    plane.install_account(WEBHOOK).await;
    let [admission, question, probe] = free_ports();
    plane.expose(names::OPERATOR_NAMESPACE, names::WEBHOOK_SERVICE, 443, admission).await;
    let trusted = certificate(&plane).await;
    let config = Config::parse_from([
        WEBHOOK.to_owned(),
        "--waiter-image=waiter:1".to_owned(),
        format!("--namespace={}", names::OPERATOR_NAMESPACE),
        format!("--probe-port={probe}"),
        format!("--admission-port={admission}"),
        format!("--question-port={question}"),
    ]);
    let (end, asked) = Shutdown::by_hand();
    let client = plane.client_as(names::OPERATOR_NAMESPACE, WEBHOOK);
    let running = tokio::spawn(async move { run_with(config, client, asked).await.unwrap() });
    // It serves once it has read all that it needs.
    while TcpStream::connect(("127.0.0.1", admission)).await.is_err() {
        assert!(!running.is_finished(), "it has ended");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whose token is it?
    assert_eq!(tokio::task::spawn_blocking(move || ask(&trusted, question)).await.unwrap(), 401);
    plane.expect_rights_as_used(WEBHOOK, &[]).await;
    end.request();
}

/// Asks as a waiter does, with a token that nobody made; returns the status of the response.
fn ask(trusted: &str, port: u16) -> u16 {
    let trusted = ureq::tls::Certificate::from_pem(trusted.as_bytes()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![trusted]))).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).proxy(None).http_status_as_error(false).build();
    let agent: ureq::Agent = agent.into();
    let question = json!({ "namespace": "default", "migrator": "shop", "containers": [] });
    let asking = agent.post(format!("https://localhost:{port}{QUESTION_PATH}"));
    let asking = asking.header("authorization", "Bearer e30.e30.c2ln");
    asking.send(question.to_string()).unwrap().status().as_u16()
}

/// As the controller makes it. Returns what to trust.
async fn certificate(plane: &ControlPlane) -> String {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let bytes = |text: String| ByteString(text.into_bytes());
    let secret = json!({
        "metadata": { "name": names::SERVING_SECRET },
        "data": { "tls.crt": bytes(pair.cert.pem()), "tls.key": bytes(pair.signing_key.serialize_pem()) },
    });
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let secrets = Api::namespaced(plane.client(), names::OPERATOR_NAMESPACE);
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    pair.cert.pem()
}
