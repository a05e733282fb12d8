//! Certificates against the recording API server.

use http::Method;
use jiff::SignedDuration;
use migrations_core::certificates::{AUTHORITY_LIFE, LEAF_LIFE};
use migrations_testkit::recording::{Fault, RecordingServer};

use super::*;

const NAMESPACE: &str = "ops";
const AUTHORITY_PATH: &str = "/api/v1/namespaces/ops/secrets/migrations-ca";
const LEAF_PATH: &str = "/api/v1/namespaces/ops/secrets/migrations-webhook-tls";

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

async fn ensured(server: &RecordingServer, at: Timestamp) -> CaBundle {
    ensure(&server.client(), NAMESPACE, at).await.unwrap()
}

fn pair(server: &RecordingServer, form: &Form, path: &str) -> Pair {
    form.pair(&serde_json::from_value(server.object(path).unwrap()).unwrap())
}

#[tokio::test]
async fn the_first_look_makes_a_chain_that_the_second_leaves_alone() {
    let server = RecordingServer::new();
    let bundle = ensured(&server, now()).await;
    assert_eq!(server.writes(), ["POST /api/v1/namespaces/ops/secrets"; 2]);
    let (authority, leaf) = (pair(&server, &AUTHORITY, AUTHORITY_PATH), pair(&server, &LEAF, LEAF_PATH));
    assert_eq!(authority.certificate, bundle.pem());
    assert!(read_leaf(&leaf, Some(&authority)).unwrap().by_authority);

    assert_eq!(ensured(&server, now() + SignedDuration::from_hours(1)).await, bundle);
    assert_eq!(server.writes().len(), 2);
}

#[tokio::test]
async fn the_serving_secret_never_holds_the_authoritys_key() {
    let server = RecordingServer::new();
    ensured(&server, now()).await;
    let data = server.object(LEAF_PATH).unwrap()["data"].clone();
    let keys: Vec<_> = data.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["tls.crt", "tls.key"]);
    assert_ne!(pair(&server, &LEAF, LEAF_PATH).key, pair(&server, &AUTHORITY, AUTHORITY_PATH).key);
}

#[tokio::test]
async fn an_old_leaf_is_renewed_under_the_same_authority() {
    let server = RecordingServer::new();
    let bundle = ensured(&server, now()).await;
    let before = pair(&server, &LEAF, LEAF_PATH);
    assert_eq!(ensured(&server, now() + LEAF_LIFE).await, bundle);
    assert!(pair(&server, &LEAF, LEAF_PATH) != before);
    assert_eq!(server.writes().last().unwrap(), &format!("PUT {LEAF_PATH}"));
}

#[tokio::test]
async fn an_old_authority_is_renewed_with_its_leaf() {
    let server = RecordingServer::new();
    let before = ensured(&server, now()).await;
    let later = now() + AUTHORITY_LIFE * 3 / 4;
    let after = ensured(&server, later).await;
    assert_ne!(after, before);
    assert!(ensured(&server, later).await == after);
}

#[tokio::test]
async fn a_crash_between_the_two_secrets_is_made_good() {
    let server = RecordingServer::new();
    server.fail(Fault::refuse(Method::POST, "/secrets", 403));
    ensure(&server.client(), NAMESPACE, now()).await.unwrap_err();
    ensured(&server, now()).await;

    server.fail(Fault::refuse(Method::PUT, "/migrations-webhook-tls", 403));
    let later = now() + AUTHORITY_LIFE;
    ensure(&server.client(), NAMESPACE, later).await.unwrap_err();
    ensured(&server, later).await;
    let (authority, leaf) = (pair(&server, &AUTHORITY, AUTHORITY_PATH), pair(&server, &LEAF, LEAF_PATH));
    assert!(read_leaf(&leaf, Some(&authority)).unwrap().by_authority);
}

#[tokio::test]
async fn who_loses_a_race_takes_what_the_winner_made() {
    let server = RecordingServer::new();
    // The first create is this controller's own, but as far as it knows another was faster.
    server.fail(Fault::lose_answer_with(Method::POST, "/secrets", 409));
    let bundle = ensured(&server, now()).await;
    assert_eq!(pair(&server, &AUTHORITY, AUTHORITY_PATH).certificate, bundle.pem());
    assert_eq!(server.writes().len(), 2, "{:?}", server.writes());
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_replaced() {
    let server = RecordingServer::new();
    let bundle = ensured(&server, now()).await;
    let secrets: Api<Secret> = Api::namespaced(server.client(), NAMESPACE);
    let torn = Patch::Merge(json!({ "data": { "tls.crt": "AAAA" } }));
    secrets.patch(SERVING_SECRET, &PatchParams::default(), &torn).await.unwrap();
    assert_eq!(ensured(&server, now()).await, bundle);

    let torn = Patch::Merge(json!({ "data": null }));
    secrets.patch(CA_SECRET, &PatchParams::default(), &torn).await.unwrap();
    assert_ne!(ensured(&server, now()).await, bundle);
}

#[tokio::test]
async fn the_bundle_is_written_once_and_put_right_when_changed() {
    let server = RecordingServer::new();
    let bundle = ensured(&server, now()).await;
    let before = server.writes().len();
    for _ in 0..2 {
        ensure_bundle(&server.client(), "shop", &bundle).await.unwrap();
    }
    assert_eq!(server.writes().len(), before + 1);

    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "shop");
    let emptied = Patch::Merge(json!({ "data": { "ca.crt": "" } }));
    maps.patch(CA_BUNDLE_CONFIG_MAP, &PatchParams::default(), &emptied).await.unwrap();
    ensure_bundle(&server.client(), "shop", &bundle).await.unwrap();
    let map = maps.get(CA_BUNDLE_CONFIG_MAP).await.unwrap();
    assert_eq!(map.data.unwrap()[CA_BUNDLE_KEY], bundle.pem());
}
