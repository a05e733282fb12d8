//! The shipped roles let the controller do what it does and no more, on a real API server.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use migrations_api::names::{CA_BUNDLE_CONFIG_MAP, OPERATOR_NAMESPACE, SERVING_SECRET};
use migrations_controller::certificates::{ensure, ensure_bundle};
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;

const CONTROLLER: &str = "migrations-controller";

/// A client with the rights that the manifests give the controller.
async fn controller(plane: &ControlPlane) -> Client {
    plane.install_account(CONTROLLER).await;
    plane.client_as(OPERATOR_NAMESPACE, CONTROLLER)
}

#[tokio::test]
async fn certificates_are_kept_with_the_shipped_rights_and_no_more() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace().await;
    let client = controller(&plane).await;

    let bundle = ensure(&client, OPERATOR_NAMESPACE, Timestamp::now()).await.unwrap();
    // Renewed: an update of what is there.
    let secrets: Api<Secret> = Api::namespaced(plane.client(), OPERATOR_NAMESPACE);
    let mut torn = secrets.get(SERVING_SECRET).await.unwrap();
    torn.data.as_mut().unwrap().get_mut("tls.key").unwrap().0.clear();
    secrets.replace(SERVING_SECRET, &PostParams::default(), &torn).await.unwrap();
    assert_eq!(ensure(&client, OPERATOR_NAMESPACE, Timestamp::now()).await.unwrap(), bundle);
    assert!(!secrets.get(SERVING_SECRET).await.unwrap().data.unwrap()["tls.key"].0.is_empty());

    ensure_bundle(&client, namespace.name(), &bundle).await.unwrap();
    let map = namespace.api::<ConfigMap>().get(CA_BUNDLE_CONFIG_MAP).await.unwrap();
    assert_eq!(map.data.unwrap()["ca.crt"], bundle.pem());
    let emptied = json!({ "metadata": { "name": CA_BUNDLE_CONFIG_MAP }, "data": { "ca.crt": "" } });
    let emptied: ConfigMap = serde_json::from_value(emptied).unwrap();
    namespace
        .api::<ConfigMap>()
        .replace(CA_BUNDLE_CONFIG_MAP, &PostParams::default(), &emptied)
        .await
        .unwrap();
    ensure_bundle(&client, namespace.name(), &bundle).await.unwrap();

    let others: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
    assert!(others.list(&ListParams::default()).await.is_err(), "Secrets of users are none of its business");
    let other: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "other" } })).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.name());
    assert!(maps.create(&PostParams::default(), &other).await.is_err(), "nor are their ConfigMaps");
}
