//! Requests share connections, and none waits for another.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config};
use migrations_controller::connect;
use migrations_testkit::cluster::ControlPlane;

#[tokio::test]
async fn more_watches_than_a_connection_takes_are_answered_and_so_is_a_list_beside_them() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace().await;
    let kubeconfig = Kubeconfig::read_from(plane.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = connect::client(config.expect("a configuration")).expect("a client");
    let pods = Api::<Pod>::namespaced(client, namespace.name());
    let parameters = WatchParams::default();
    let asked = async {
        let open = try_join_all((0..250).map(|_| pods.watch(&parameters, "0"))).await;
        let listed = pods.list(&ListParams::default()).await;
        open.and(listed)
    };
    let answered = tokio::time::timeout(Duration::from_mins(1), asked).await;
    answered.expect("none waits for another to end").expect("an answer");
}
