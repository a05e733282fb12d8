//! The shipped roles let the controller do what it does and no more, on a real API server.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use kube::api::{ListParams, PostParams};
use kube::runtime::reflector;
use kube::{Api, Client};
use migrations_api::names::{CA_BUNDLE_CONFIG_MAP, CONTROLLER_LEASE, OPERATOR_NAMESPACE, SERVING_SECRET};
use migrations_controller::certificates::{CertificateKeeper, ensure_bundle};
use migrations_controller::gather::claims;
use migrations_controller::lease::Election;
use migrations_controller::metrics::Metrics;
use migrations_core::certificates::Lifetimes;
use migrations_core::snapshot::{OwnerRef, Owners};
use migrations_process::shutdown::Shutdown;
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;
use tokio::sync::watch;

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

    let (told, bundle) = watch::channel(None);
    let migrators = reflector::store().0;
    let lifetimes = Lifetimes::default();
    let mut keeper = CertificateKeeper::new(
        client.clone(),
        OPERATOR_NAMESPACE,
        lifetimes,
        migrators,
        told,
        Metrics::default(),
    );
    keeper.look(Timestamp::now()).await.unwrap();
    let bundle = bundle.borrow().clone().unwrap();
    // Renewed: an update of what is there.
    let secrets: Api<Secret> = Api::namespaced(plane.client(), OPERATOR_NAMESPACE);
    let mut torn = secrets.get(SERVING_SECRET).await.unwrap();
    torn.data.as_mut().unwrap().get_mut("tls.key").unwrap().0.clear();
    secrets.replace(SERVING_SECRET, &PostParams::default(), &torn).await.unwrap();
    keeper.look(Timestamp::now()).await.unwrap();
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

    // Watched by name alone.
    let own: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    own.list(&ListParams::default().fields("metadata.name=migrations-ca")).await.unwrap();
    assert!(own.list(&ListParams::default()).await.is_err(), "other Secrets of its namespace are not its");
    let others: Api<Secret> = Api::namespaced(client.clone(), namespace.name());
    assert!(others.list(&ListParams::default()).await.is_err(), "Secrets of users are none of its business");
    let other: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "other" } })).unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace.name());
    assert!(maps.create(&PostParams::default(), &other).await.is_err(), "nor are their ConfigMaps");
}

#[tokio::test]
async fn a_leader_is_elected_with_the_shipped_rights_and_no_more() {
    let plane = ControlPlane::start().await;
    let client = controller(&plane).await;
    // Each leads once, the second after it has waited for the first.
    let replica = |identity: &str| {
        let (stop, shutdown) = Shutdown::by_hand();
        let election = Election::new(client.clone(), OPERATOR_NAMESPACE, identity.to_owned());
        let (leads, led) = tokio::sync::oneshot::channel();
        let leads = std::sync::Mutex::new(Some(leads));
        let task = tokio::spawn(async move {
            let work = || {
                leads.lock().unwrap().take().unwrap().send(()).unwrap();
                std::future::pending()
            };
            election.work(|| {}, work, &shutdown).await;
        });
        (stop, task, led)
    };
    let (stop, first, led) = replica("first");
    led.await.unwrap();
    let (stop_second, second, led) = replica("second");
    let leases: Api<Lease> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let watched =
        kube::runtime::wait::await_condition(leases.clone(), CONTROLLER_LEASE, |lease: Option<&Lease>| {
            lease.is_some_and(|lease| {
                lease.spec.as_ref().is_some_and(|spec| spec.holder_identity.as_deref() == Some("first"))
            })
        });
    watched.await.unwrap();
    stop.request();
    first.await.unwrap();
    led.await.unwrap();
    stop_second.request();
    second.await.unwrap();

    let others: Api<Lease> = Api::namespaced(client, "default");
    let lease: Lease = serde_json::from_value(json!({ "metadata": { "name": CONTROLLER_LEASE } })).unwrap();
    assert!(
        others.create(&PostParams::default(), &lease).await.is_err(),
        "Leases of other namespaces are none of its business"
    );
}

/// What may not be read counts as unknown, so that a right too few would never be told.
#[tokio::test]
async fn claims_are_read_with_the_shipped_rights_and_no_more() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace().await;
    let client = controller(&plane).await;
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": { "name": "media" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    }))
    .unwrap();
    namespace.api::<PersistentVolumeClaim>().create(&PostParams::default(), &claim).await.unwrap();

    let pod =
        OwnerRef { api_version: "v1".to_owned(), kind: "Pod".to_owned(), name: "web".to_owned(), uid: None };
    let volume = json!({ "name": "media", "persistentVolumeClaim": { "claimName": "media" } });
    let owners = Owners::from([(pod, Some(json!({ "spec": { "volumes": [volume] } })))]);
    let read = claims(&client, namespace.name(), &owners).await.unwrap();
    assert_eq!(read["media"].access_modes, ["ReadWriteOnce"]);

    let all: Api<PersistentVolumeClaim> = Api::namespaced(client, namespace.name());
    assert!(all.list(&ListParams::default()).await.is_err(), "only those that templates name");
}
