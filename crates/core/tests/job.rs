//! What a run looks like (contract §4): one snapshot of the whole, and a row for each cleaning rule.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test ends with a panic; cases read best by value"
)]

#[cfg(test)]
mod world;

use migrations_core::job::{RunIdentity, render, run_hash};
use migrations_core::validate::{Valid, validate};
use rstest::rstest;
use serde_json::{Value, json};
use world::World;

fn valid(spec: Value) -> Valid {
    let mut whole = json!({ "selector": { "matchLabels": { "app": "shop" } } });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    validate(&serde_json::from_value(whole).unwrap()).unwrap()
}

fn job(spec: Value, template: &Value) -> Value {
    let valid = valid(spec);
    let run =
        RunIdentity { key: "shop:v1".to_owned(), attempt: 1, run_hash: run_hash(&valid, template, None) };
    render(&valid, &World::new().snapshot(), template, &run).unwrap()
}

/// The Pod spec of a run of a Pod spec with one container, `app`, and what a case adds.
fn cleaned(spec: Value, container: Value) -> Value {
    let mut whole = json!({ "containers": [{ "name": "app", "image": "shop:v1" }] });
    whole["containers"][0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let template = json!({ "metadata": { "labels": { "app": "shop" } }, "spec": whole });
    job(json!({}), &template)["spec"]["template"]["spec"].take()
}

#[test]
fn a_deployments_template_becomes_a_job() {
    let template = json!({
        "metadata": { "labels": { "app": "shop" }, "annotations": { "prometheus.io/scrape": "true" } },
        "spec": {
            "serviceAccountName": "shop",
            "initContainers": [
                { "name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
                  "startupProbe": { "tcpSocket": { "port": 5432 } },
                  "ports": [{ "containerPort": 5432, "hostPort": 5432 }] },
                { "name": "migrate-wait-shop", "image": "waiter" },
            ],
            "containers": [
                { "name": "logger", "image": "logger:1" },
                { "name": "app", "image": "shop:v1", "args": ["serve"], "futureField": { "kept": true },
                  "env": [{ "name": "DATABASE_URL", "valueFrom": { "secretKeyRef": { "name": "shop", "key": "url" } } }],
                  "ports": [{ "containerPort": 8000 }],
                  "livenessProbe": { "httpGet": { "path": "/", "port": 8000 } },
                  "readinessProbe": { "httpGet": { "path": "/", "port": 8000 } },
                  "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } },
                  "resources": { "limits": { "memory": "128Mi" } } },
            ],
            "restartPolicy": "Always",
            "securityContext": { "runAsNonRoot": true },
        },
    });
    let spec = json!({
        "container": "app",
        "command": ["python", "manage.py"],
        "args": ["migrate"],
        "labels": { "team": "shop", "migrations": "mine" },
        "annotations": { "note": "x" },
    });
    insta::assert_json_snapshot!(job(spec, &template));
}

#[rstest]
#[case::node(json!({ "nodeName": "worker" }), "/nodeName")]
#[case::hostname(json!({ "hostname": "web-0" }), "/hostname")]
#[case::subdomain(json!({ "subdomain": "web" }), "/subdomain")]
#[case::fqdn(json!({ "setHostnameAsFQDN": true }), "/setHostnameAsFQDN")]
#[case::deadline(json!({ "activeDeadlineSeconds": 5 }), "/activeDeadlineSeconds")]
#[case::scheduling_gates(json!({ "schedulingGates": [{ "name": "x" }] }), "/schedulingGates")]
#[case::ephemeral_containers(json!({ "ephemeralContainers": [{ "name": "debug" }] }), "/ephemeralContainers")]
#[case::own_spread(
    json!({ "topologySpreadConstraints": [{ "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "shop" } } }] }),
    "/topologySpreadConstraints/0"
)]
#[case::own_anti_affinity(
    json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "labelSelector": { "matchLabels": { "app": "shop" } } }] } } }),
    "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0"
)]
#[case::generated_token(json!({ "volumes": [{ "name": "kube-api-access-x7", "projected": {} }] }), "/volumes/0")]
#[case::admission_toleration(
    json!({ "tolerations": [{ "key": "node.kubernetes.io/not-ready", "tolerationSeconds": 300 }] }),
    "/tolerations/0"
)]
fn what_places_or_times_a_serving_pod_is_dropped(#[case] spec: Value, #[case] path: &str) {
    assert_eq!(cleaned(spec, json!({})).pointer(path), None);
}

#[rstest]
#[case::anti_affinity_to_others(
    json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{ "labelSelector": { "matchLabels": { "app": "other" } } }] } } }),
    "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0"
)]
#[case::own_toleration(json!({ "tolerations": [{ "key": "spot", "operator": "Exists" }] }), "/tolerations/0")]
#[case::node_selector(json!({ "nodeSelector": { "disk": "ssd" } }), "/nodeSelector/disk")]
#[case::pull_secrets(json!({ "imagePullSecrets": [{ "name": "pull" }] }), "/imagePullSecrets/0")]
#[case::unknown_to_this_build(json!({ "fieldOfTheFuture": 1 }), "/fieldOfTheFuture")]
fn what_the_run_needs_as_much_is_kept(#[case] spec: Value, #[case] path: &str) {
    assert_eq!(cleaned(spec.clone(), json!({})).pointer(path), spec.pointer(path));
}

#[rstest]
#[case::liveness(json!({ "livenessProbe": {} }), "/containers/0/livenessProbe")]
#[case::readiness(json!({ "readinessProbe": {} }), "/containers/0/readinessProbe")]
#[case::startup(json!({ "startupProbe": {} }), "/containers/0/startupProbe")]
#[case::lifecycle(json!({ "lifecycle": {} }), "/containers/0/lifecycle")]
#[case::ports(json!({ "ports": [{ "hostPort": 80 }] }), "/containers/0/ports")]
#[case::restart_policy(json!({ "restartPolicy": "Always" }), "/containers/0/restartPolicy")]
fn what_only_a_serving_container_has_is_dropped(#[case] container: Value, #[case] path: &str) {
    assert_eq!(cleaned(json!({}), container).pointer(path), None);
}

#[test]
fn a_mount_of_a_stateful_sets_claim_becomes_an_empty_directory() {
    let spec = cleaned(json!({}), json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }));
    assert_eq!(spec["volumes"], json!([{ "name": "data", "emptyDir": {} }]));
}

#[test]
fn no_service_ever_sends_a_run_traffic() {
    let spec = cleaned(json!({ "readinessGates": [{ "conditionType": "theirs" }] }), json!({}));
    assert_eq!(spec["readinessGates"], json!([{ "conditionType": "migrations.coderanger.net/never-ready" }]));
}

#[rstest]
#[case::same(json!({}), "shop:v1", true)]
#[case::another_command(json!({ "command": ["x"] }), "shop:v1", false)]
#[case::another_template(json!({}), "shop:v2", false)]
fn the_hash_tells_runs_apart(#[case] spec: Value, #[case] image: &str, #[case] same: bool) {
    let template = |image: &str| world::template("web", image, None);
    let first = run_hash(&valid(json!({})), &template("shop:v1"), None);
    assert_eq!(first == run_hash(&valid(spec), &template(image), None), same);
}

#[test]
fn a_restart_by_annotation_is_the_same_run() {
    let (mut one, other) = (world::template("web", "shop:v1", None), world::template("web", "shop:v1", None));
    one["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/restartedAt": "now" });
    assert_eq!(run_hash(&valid(json!({})), &one, None), run_hash(&valid(json!({})), &other, None));
}
