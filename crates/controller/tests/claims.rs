//! Which claims are read before a run is decided on, and what can't be read (contract §4).

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::collections::BTreeMap;

use http::Method;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use migrations_controller::gather::{Error, claims};
use migrations_core::snapshot::{OwnerRef, Owners};
use migrations_testkit::builders::{Object, existing};
use migrations_testkit::recording::{Fault, RecordingServer};
use rstest::rstest;
use serde_json::json;

const CLAIMS: &str = "/api/v1/namespaces/shop/persistentvolumeclaims";

/// A Deployment and its ReplicaSet, whose templates both name these claims.
fn owners(claims: &[&str]) -> Owners {
    let volumes: Vec<_> =
        claims.iter().map(|claim| json!({ "persistentVolumeClaim": { "claimName": claim } })).collect();
    let object = json!({ "spec": { "template": { "spec": { "containers": [], "volumes": volumes } } } });
    let owner = |kind: &str| OwnerRef {
        api_version: "apps/v1".to_owned(),
        kind: kind.to_owned(),
        name: "web".to_owned(),
        uid: None,
    };
    BTreeMap::from([(owner("Deployment"), Some(object.clone())), (owner("ReplicaSet"), Some(object))])
}

fn claim(name: &str, mode: &str) -> Object<PersistentVolumeClaim> {
    existing(&PersistentVolumeClaim::default()).with(json!({
        "metadata": { "name": name, "namespace": "shop" }, "spec": { "accessModes": [mode] },
    }))
}

#[tokio::test]
async fn each_claim_that_a_template_names_is_read_once_and_no_other() {
    let server = RecordingServer::new()
        .holding("persistentvolumeclaims", &claim("media", "ReadWriteOnce"))
        .holding("persistentvolumeclaims", &claim("other", "ReadWriteMany"));
    let read = claims(&server.client(), "shop", &owners(&["media"])).await.unwrap();
    let modes: Vec<_> =
        read.iter().map(|(name, facts)| (name.as_str(), facts.access_modes.as_slice())).collect();
    assert_eq!(modes, [("media", ["ReadWriteOnce".to_owned()].as_slice())]);
    let asked: Vec<_> = server.requests().iter().map(|it| format!("{} {}", it.method, it.path)).collect();
    assert_eq!(asked, [format!("GET {CLAIMS}/media")]);
}

#[tokio::test]
async fn templates_without_claims_ask_for_nothing() {
    let server = RecordingServer::new();
    assert!(claims(&server.client(), "shop", &owners(&[])).await.unwrap().is_empty());
    assert!(server.requests().is_empty());
}

#[rstest]
#[case::gone(404)]
#[case::forbidden(403)]
#[tokio::test]
async fn a_claim_that_cannot_be_read_is_left_out(#[case] status: u16) {
    let server = RecordingServer::new().holding("persistentvolumeclaims", &claim("media", "ReadWriteOnce"));
    server.fail(Fault::refuse(Method::GET, "gone", status));
    let read = claims(&server.client(), "shop", &owners(&["gone", "media"])).await.unwrap();
    assert_eq!(read.into_keys().collect::<Vec<_>>(), ["media"]);
}

#[tokio::test]
async fn a_fault_that_may_pass_is_an_error_that_names_the_claim() {
    let server = RecordingServer::new();
    server.fail(Fault::refuse(Method::GET, "media", 500));
    let error = claims(&server.client(), "shop", &owners(&["media"])).await.unwrap_err();
    assert!(matches!(&error, Error::Claim { name, .. } if name == "media"), "{error}");
}
