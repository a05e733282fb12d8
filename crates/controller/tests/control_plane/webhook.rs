//! A webhook that lets every Pod pass, and answers the controller's probe as the real one does.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use migrations_api::names;
use migrations_core::entries::Caller;
use migrations_core::entries::probe::REACHED;
use migrations_process::listen::listen;
use migrations_process::serve::{self, Limits, json};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_process::tls::Certificate;
use migrations_testkit::cluster::ControlPlane;
use serde_json::Value;

const LIMITS: Limits = Limits {
    connections: 100,
    per_source: 100,
    streams: Some(100),
    body: 1024 * 1024,
    memory: usize::MAX,
    memory_per_source: usize::MAX,
    handshake: Duration::from_secs(30),
    headers: Duration::from_mins(1),
    request: Duration::from_mins(1),
    idle: Duration::from_mins(1),
    drain: Duration::ZERO,
};

/// Serves it until that is requested or the test is over, with the certificate that a controller of that
/// namespace makes.
pub(crate) async fn serve(plane: &ControlPlane, operator: &str) -> Trigger {
    let certificate = Certificate::default();
    let secrets: Api<Secret> = Api::namespaced(plane.client(), operator);
    tokio::spawn(follow(secrets, certificate.clone()));
    let listener = listen(0).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    plane.expose(operator, names::WEBHOOK_SERVICE, names::ADMISSION_PORT, port).await;
    let (trigger, end) = Shutdown::by_hand();
    let tls = certificate.server_config().expect("a TLS configuration");
    tokio::spawn(serve::serve(listener, tls, LIMITS, end, answer));
    trigger
}

async fn follow(secrets: Api<Secret>, certificate: Certificate) {
    let ours = watcher::Config::default().fields(&format!("metadata.name={}", names::SERVING_SECRET));
    let mut secrets = std::pin::pin!(watcher(secrets, ours).default_backoff().applied_objects());
    while let Some(secret) = secrets.next().await {
        let data = secret.ok().and_then(|secret| secret.data).unwrap_or_default();
        if let (Some(chain), Some(key)) = (data.get("tls.crt"), data.get("tls.key")) {
            certificate.replace(&chain.0, &key.0).expect("a certificate");
        }
    }
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let caller = Caller::of(request.uri().path());
    let body = request.into_body().collect().await.expect("a whole request").to_bytes();
    let mut review: Value = serde_json::from_slice(&body).expect("a review");
    let uid = review["request"]["uid"].take();
    let response = match caller {
        Caller::Probe => {
            serde_json::json!({ "uid": uid, "allowed": false, "status": { "message": REACHED } })
        }
        Caller::Nobody | Caller::Migrators(_) => serde_json::json!({ "uid": uid, "allowed": true }),
    };
    review = serde_json::json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    json(review.to_string().into_bytes())
}
