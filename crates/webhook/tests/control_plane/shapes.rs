//! Pods of every shape, and what else judges them: the API server takes each with its waiter, and leaves it in
//! the `QoS` class that it would have been in without.

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use rstest::rstest;

use super::*;

/// A webhook that holds the Pods of the shop.
async fn gated() -> Installed {
    let webhook = Installed::new().await;
    webhook.migrator(&migrator("shop").selecting("app", "shop"), "shop").await;
    webhook
}

fn resources(requests: &Value, limits: &Value) -> Value {
    json!({"resources": {"requests": requests, "limits": limits}})
}

fn with_resources(resources: Value) -> Object<Pod> {
    pod("shop").label("app", "shop").container_with("app", "shop:2", resources)
}

/// A Pod that asks for just what a waiter asks for by itself, and doesn't wait.
fn like_a_waiter() -> Object<Pod> {
    let amounts = json!({"cpu": "100m", "memory": "32Mi"});
    pod("probe").container_with("app", "shop:2", resources(&amounts, &amounts))
}

impl Installed {
    /// Waits until `pod` is refused: what the API server judges Pods by reaches it a little later.
    async fn until_refused(&self, pod: &Object<Pod>) {
        while self.dry_run(pod).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn label_namespace(&self, key: &str, value: &str) {
        let labels = json!({"metadata": {"labels": {key: value}}});
        let namespaces: Api<Namespace> = Api::all(self.namespace.client());
        let params = PatchParams::default();
        namespaces.patch(self.namespace.name(), &params, &Patch::Merge(labels)).await.unwrap();
    }
}

fn class(pod: &Pod) -> &str {
    pod.status.as_ref().unwrap().qos_class.as_deref().unwrap()
}

fn amount(pod: &Pod, kind: &str, resource: &str) -> Value {
    let waiter = serde_json::to_value(waiters(pod)[0]).unwrap();
    waiter["resources"][kind][resource].clone()
}

#[rstest]
#[case::guaranteed(
    resources(&json!({"cpu": "50m", "memory": "64Mi"}), &json!({"cpu": "50m", "memory": "64Mi"})), "Guaranteed")]
#[case::burstable(resources(&json!({"cpu": "50m"}), &json!({"memory": "64Mi"})), "Burstable")]
#[case::best_effort(json!({}), "BestEffort")]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_keeps_its_qos_class(#[case] resources: Value, #[case] expected: &str) {
    let webhook = gated().await;
    let pod = webhook.namespace.create(&with_resources(resources)).await;
    assert_eq!((waiters(&pod).len(), class(&pod)), (1, expected));
}

#[rstest]
#[case::minimum(
    json!({"min": {"cpu": "200m", "memory": "64Mi"}}),
    resources(&json!({"cpu": "250m", "memory": "64Mi"}), &json!({"cpu": "1", "memory": "1Gi"})), ("250m", "64Mi"))]
#[case::maximum(
    json!({"max": {"cpu": "80m", "memory": "24Mi"}}),
    resources(&json!({"cpu": "80m", "memory": "20Mi"}), &json!({"cpu": "80m", "memory": "20Mi"})), ("80m", "20Mi"))]
#[case::maximum_is_the_default(json!({"max": {"cpu": "80m", "memory": "24Mi"}}), json!({}), ("80m", "24Mi"))]
#[case::default_within_the_bounds(
    json!({"min": {"cpu": "200m", "memory": "64Mi"}, "max": {"cpu": "2", "memory": "1Gi"},
        "default": {"cpu": "500m", "memory": "128Mi"}, "defaultRequest": {"cpu": "200m", "memory": "64Mi"}}),
    json!({}), ("200m", "64Mi"))]
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_range_that_takes_the_pod_takes_its_waiter(
    #[case] mut range: Value,
    #[case] resources: Value,
    #[case] expected: (&str, &str),
) {
    let webhook = gated().await;
    range["type"] = json!("Container");
    let range: LimitRange = from_json(json!({"metadata": {"name": "range"}, "spec": {"limits": [range]}}));
    webhook.namespace.api().create(&PostParams::default(), &range).await.unwrap();
    webhook.until_refused(&like_a_waiter()).await;

    let pod = webhook.namespace.create(&with_resources(resources)).await;
    for kind in ["requests", "limits"] {
        assert_eq!(
            (amount(&pod, kind, "cpu"), amount(&pod, kind, "memory")),
            (expected.0.into(), expected.1.into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_demands_limits_takes_a_pod_that_waits() {
    let webhook = gated().await;
    let hard =
        json!({"limits.cpu": "2", "limits.memory": "1Gi", "requests.cpu": "100m", "requests.memory": "64Mi"});
    let quota: ResourceQuota = from_json(json!({"metadata": {"name": "quota"}, "spec": {"hard": hard}}));
    webhook.namespace.api().create(&PostParams::default(), &quota).await.unwrap();
    // No controller of quotas runs here.
    let used = json!({"limits.cpu": "0", "limits.memory": "0", "requests.cpu": "0", "requests.memory": "0"});
    let status = Patch::Merge(json!({"status": {"hard": hard, "used": used}}));
    let quotas: Api<ResourceQuota> = webhook.namespace.api();
    quotas.patch_status("quota", &PatchParams::default(), &status).await.unwrap();
    webhook.until_refused(&pod("probe").container("app", "shop:2")).await;

    // All that there is: a waiter adds nothing to it.
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    let pod = webhook.namespace.create(&with_resources(resources(&amounts, &amounts))).await;
    assert_eq!((waiters(&pod).len(), class(&pod)), (1, "Guaranteed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_stays_within_what_its_pod_asks_for_as_a_whole() {
    let webhook = gated().await;
    let mut whole =
        resources(&json!({"cpu": "50m", "memory": "20Mi"}), &json!({"cpu": "1", "memory": "1Gi"}));
    whole["containers"] = json!([{"name": "app", "image": "shop:2"}]);
    let pod =
        webhook.namespace.create(&pod("shop").label("app", "shop").with(json!({ "spec": whole }))).await;
    assert_eq!(
        (amount(&pod, "requests", "cpu"), amount(&pod, "requests", "memory")),
        ("50m".into(), "20Mi".into())
    );
}

#[rstest]
#[case::root(json!({"securityContext": {"runAsUser": 0}}))]
#[case::own_user(json!({"securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "fsGroup": 2000}}))]
#[case::names_of_the_node(json!({"dnsPolicy": "Default"}))]
#[case::names_of_its_own(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"]}}))]
#[case::native_sidecar(
    json!({"initContainers": [{"name": "proxy", "image": "proxy:1", "restartPolicy": "Always"}]}))]
#[case::waits_for_a_scheduling_gate(json!({"schedulingGates": [{"name": "example.com/quota"}]}))]
#[case::user_namespace(json!({"hostUsers": false}))]
#[case::shares_its_processes(json!({"shareProcessNamespace": true}))]
#[case::linux(json!({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/arch": "amd64"}}))]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_any_shape_waits_in_a_baseline_namespace(#[case] spec: Value) {
    let webhook = gated().await;
    webhook.label_namespace("pod-security.kubernetes.io/enforce", "baseline").await;
    let host_ports = json!({"ports": [{"containerPort": 80, "hostPort": 80}]});
    webhook.until_refused(&pod("probe").container_with("app", "shop:2", host_ports)).await;

    let pod = webhook.namespace.create(&shop_pod("shop").with(json!({ "spec": spec }))).await;
    let init = pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap();
    assert_eq!(init[0].name, "migrate-wait-shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_carry_a_waiter_is_refused_with_the_reason() {
    let webhook = gated().await;
    let windows = shop_pod("shop").with(json!({"spec": {"os": {"name": "windows"}}}));
    let error = webhook.dry_run(&windows).await.unwrap_err().to_string();
    assert!(error.contains("can't carry its waiter: it asks for nodes that run Windows"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_mesh_tells_it_to_leave_the_question_port_alone() {
    let webhook = gated().await;
    let annotation = "config.linkerd.io/skip-outbound-ports";
    let meshed =
        shop_pod("shop").annotation("linkerd.io/inject", "enabled").annotation(annotation, "4000-5000");
    let pod = webhook.namespace.create(&meshed).await;
    assert_eq!(pod.metadata.annotations.unwrap()[annotation], "4000-5000,9444");
}
