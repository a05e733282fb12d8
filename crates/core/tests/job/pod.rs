//! Fields of the Pod spec.

use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{cleaned, pod_spec, template, with};

#[rstest]
#[case::node(json!({ "nodeName": "worker" }), "/nodeName")]
#[case::hostname(json!({ "hostname": "web-0" }), "/hostname")]
#[case::hostname_override(json!({ "hostnameOverride": "web-0" }), "/hostnameOverride")]
#[case::subdomain(json!({ "subdomain": "web" }), "/subdomain")]
#[case::fqdn(json!({ "setHostnameAsFQDN": true }), "/setHostnameAsFQDN")]
#[case::deadline(json!({ "activeDeadlineSeconds": 5 }), "/activeDeadlineSeconds")]
#[case::scheduling_gates(json!({ "schedulingGates": [{ "name": "x" }] }), "/schedulingGates")]
#[case::ephemeral_containers(json!({ "ephemeralContainers": [{ "name": "debug" }] }), "/ephemeralContainers")]
fn what_places_or_times_a_serving_pod_is_dropped(#[case] spec: Value, #[case] path: &str) {
    assert_eq!(cleaned(spec, json!({})).pointer(path), None);
}

#[rstest]
#[case::own_toleration(json!({ "tolerations": [{ "key": "spot", "operator": "Exists" }] }), "/tolerations/0")]
#[case::toleration_of_a_template(
    json!({ "tolerations": [{ "key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300 }] }),
    "/tolerations/0"
)]
#[case::node_selector(json!({ "nodeSelector": { "disk": "ssd" } }), "/nodeSelector/disk")]
#[case::pull_secrets(json!({ "imagePullSecrets": [{ "name": "pull" }] }), "/imagePullSecrets/0")]
#[case::host_network(json!({ "hostNetwork": true }), "/hostNetwork")]
#[case::security(json!({ "securityContext": { "runAsUser": 7 } }), "/securityContext")]
#[case::unknown_to_this_build(json!({ "fieldOfTheFuture": { "deep": [1] } }), "/fieldOfTheFuture")]
fn what_the_run_needs_as_much_is_kept(#[case] spec: Value, #[case] path: &str) {
    assert_eq!(cleaned(spec.clone(), json!({})).pointer(path), spec.pointer(path));
}

/// What the API server adds to a Pod that nobody wrote it into.
#[rstest]
#[case::toleration(
    json!({ "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }] }),
    "/tolerations/0"
)]
#[case::priority(json!({ "priority": 0 }), "/priority")]
#[case::preemption(json!({ "preemptionPolicy": "PreemptLowerPriority" }), "/preemptionPolicy")]
#[case::overhead(json!({ "overhead": { "cpu": "1" } }), "/overhead")]
#[case::node(json!({ "nodeName": "worker" }), "/nodeName")]
fn admission_defaults_of_a_bare_pod_are_dropped(#[case] spec: Value, #[case] path: &str) {
    let pod = with(template(spec, json!({})), json!({ "apiVersion": "v1", "kind": "Pod" }));
    assert_eq!(pod_spec(json!({}), &pod).pointer(path), None);
}

#[test]
fn a_run_never_restarts_and_never_becomes_ready() {
    let theirs = json!({ "readinessGates": [{ "conditionType": "theirs" }], "restartPolicy": "Always" });
    let spec = cleaned(theirs, json!({}));
    assert_eq!(spec["restartPolicy"], json!("Never"));
    assert_eq!(spec["readinessGates"], json!([{ "conditionType": "migrations.coderanger.net/never-ready" }]));
}

/// Ordinary Services leave out what isn't ready, whatever labels it has.
#[test]
fn a_run_with_the_workloads_labels_is_as_little_ready() {
    let migrator = json!({ "labels": { "app": "shop" } });
    let spec = pod_spec(
        migrator,
        &template(json!({}), json!({ "ports": [{ "name": "http", "containerPort": 80 }] })),
    );
    assert_eq!(
        (&spec["readinessGates"], spec.pointer("/containers/0/ports")),
        (&json!([{ "conditionType": "migrations.coderanger.net/never-ready" }]), None)
    );
}

#[rstest]
#[case::the_templates(json!({}), json!({ "serviceAccountName": "shop", "serviceAccount": "shop" }), "shop")]
#[case::the_specs(json!({ "serviceAccountName": "ddl" }), json!({ "serviceAccountName": "shop", "serviceAccount": "shop" }), "ddl")]
#[case::by_its_old_name(json!({}), json!({ "serviceAccount": "shop" }), "shop")]
fn the_service_account_is_the_specs_or_the_templates(
    #[case] migrator: Value,
    #[case] spec: Value,
    #[case] account: &str,
) {
    let spec = pod_spec(migrator, &template(spec, json!({})));
    assert_eq!((&spec["serviceAccountName"], spec.get("serviceAccount")), (&json!(account), None));
}

#[test]
fn a_deadline_is_the_pods_whose_log_outlives_it() {
    let template = template(json!({ "activeDeadlineSeconds": 5 }), json!({}));
    assert_eq!(
        pod_spec(json!({ "activeDeadlineSeconds": 60 }), &template)["activeDeadlineSeconds"],
        json!(60)
    );
}
