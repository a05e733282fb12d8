//! The migration's container, and those beside it.

use migrations_api::Reason;
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{cleaned, migration, pod_spec, run, template, with};
use crate::world::World;

/// A Pod template of a database proxy and the application.
fn with_proxy(spec: Value, proxy: Value) -> Value {
    let proxy = with(json!({ "name": "proxy", "image": "proxy:1" }), proxy);
    let app = json!({ "name": "app", "image": "shop:v1" });
    template(with(json!({ "containers": [app, proxy] }), spec), json!({}))
}

/// The proxy, kept.
fn kept(spec: Value, proxy: Value) -> Value {
    let migrator = json!({ "keepContainers": ["proxy"] });
    pod_spec(migrator, &with_proxy(spec, proxy))["initContainers"][0].take()
}

/// An init container of a template, in the run.
fn beside(spec: Value, container: Value) -> Value {
    let init = with(json!({ "name": "beside", "image": "beside:1" }), container);
    cleaned(with(json!({ "initContainers": [init] }), spec), json!({}))["initContainers"][0].take()
}

fn names(spec: &Value, field: &str) -> Vec<String> {
    let containers = spec[field].as_array().into_iter().flatten();
    containers.map(|container| container["name"].as_str().unwrap().to_owned()).collect()
}

#[rstest]
#[case::liveness(json!({ "livenessProbe": {} }), "/livenessProbe")]
#[case::readiness(json!({ "readinessProbe": {} }), "/readinessProbe")]
#[case::startup(json!({ "startupProbe": {} }), "/startupProbe")]
#[case::lifecycle(json!({ "lifecycle": {} }), "/lifecycle")]
#[case::ports(json!({ "ports": [{ "hostPort": 80 }] }), "/ports")]
#[case::restart_policy(json!({ "restartPolicy": "Always" }), "/restartPolicy")]
#[case::restart_rules(json!({ "restartPolicyRules": [{ "action": "Restart" }] }), "/restartPolicyRules")]
#[case::resize_policy(json!({ "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }] }), "/resizePolicy")]
fn what_only_a_serving_container_has_is_dropped(#[case] container: Value, #[case] path: &str) {
    assert_eq!(migration(json!({}), container).pointer(path), None);
}

#[rstest]
#[case::name(json!({}), "/name", json!("migrations"))]
#[case::image(json!({ "image": "shop:ddl" }), "/image", json!("shop:ddl"))]
#[case::command(json!({ "command": ["migrate"] }), "/command", json!(["migrate"]))]
#[case::args(json!({ "args": ["--all"] }), "/args", json!(["--all"]))]
#[case::resources(json!({ "resources": { "limits": { "cpu": "1" } } }), "/resources", json!({ "limits": { "cpu": "1" } }))]
#[case::last_output(json!({}), "/terminationMessagePolicy", json!("FallbackToLogsOnError"))]
fn the_spec_is_applied_to_the_migrations_container(
    #[case] migrator: Value,
    #[case] path: &str,
    #[case] expected: Value,
) {
    let theirs = json!({
        "command": ["serve"], "args": ["--port"], "resources": { "limits": { "memory": "1Gi" } },
        "terminationMessagePolicy": "File",
    });
    assert_eq!(migration(migrator, theirs).pointer(path), Some(&expected));
}

#[test]
fn what_the_spec_leaves_out_is_the_templates() {
    let theirs = json!({
        "command": ["serve"], "args": ["x"], "resources": { "limits": { "memory": "1Gi" } }, "future": [{ "kept": 1 }],
        "env": [{ "name": "A", "value": "1" }], "envFrom": [{ "secretRef": { "name": "shop" } }],
    });
    let run = migration(json!({}), theirs.clone());
    for (field, value) in theirs.as_object().unwrap() {
        assert_eq!(run[field], *value, "{field}");
    }
}

/// No log is copied where the administrator hides output; what the application writes to its own
/// message file still is.
#[test]
fn hidden_output_is_not_copied_into_the_pods_status() {
    let mut snapshot = World::new().snapshot();
    snapshot.policy.hide_output = true;
    let theirs = template(json!({}), json!({ "terminationMessagePolicy": "FallbackToLogsOnError" }));
    let job = run(json!({}), &snapshot, &theirs).unwrap().job;
    let policy = job.pointer("/spec/template/spec/containers/0/terminationMessagePolicy");
    assert_eq!(policy, Some(&json!("File")));
}

#[rstest]
#[case::added_last(json!([{ "name": "B", "value": "2" }]), json!([{ "name": "A", "value": "1" }, { "name": "URL", "value": "$(A)" }, { "name": "B", "value": "2" }]))]
#[case::in_place_of_the_templates(json!([{ "name": "A", "value": "9" }]), json!([{ "name": "A", "value": "9" }, { "name": "URL", "value": "$(A)" }]))]
#[case::the_last_of_one_name_counts(json!([{ "name": "A", "value": "8" }, { "name": "A", "value": "9" }]), json!([{ "name": "A", "value": "9" }, { "name": "URL", "value": "$(A)" }]))]
fn variables_are_merged_by_name(#[case] env: Value, #[case] expected: Value) {
    let theirs = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "URL", "value": "$(A)" }] });
    assert_eq!(migration(json!({ "env": env }), theirs)["env"], expected);
}

#[test]
fn a_variable_takes_the_place_of_one_from_a_secret() {
    let secret = json!({ "secretKeyRef": { "name": "shop", "key": "url" } });
    let theirs = json!({ "env": [{ "name": "URL", "valueFrom": secret }] });
    let run = migration(json!({ "env": [{ "name": "URL", "value": "x" }] }), theirs);
    assert_eq!(run["env"], json!([{ "name": "URL", "value": "x" }]));
}

#[test]
fn sources_of_variables_come_after_the_templates_and_win() {
    let theirs = json!({ "envFrom": [{ "secretRef": { "name": "shop" } }] });
    let run = migration(json!({ "envFrom": [{ "secretRef": { "name": "ddl" } }] }), theirs);
    assert_eq!(
        run["envFrom"],
        json!([{ "secretRef": { "name": "shop" } }, { "secretRef": { "name": "ddl" } }])
    );
}

#[test]
fn of_two_containers_the_named_second_one_is_the_run_and_the_other_is_dropped() {
    let containers =
        json!([{ "name": "logger", "image": "logger:1" }, { "name": "app", "image": "shop:v1" }]);
    let template = template(json!({ "containers": containers }), json!({}));
    let spec = pod_spec(json!({ "container": "app" }), &template);
    assert_eq!(spec["containers"].as_array().unwrap().len(), 1);
    assert_eq!((&spec["containers"][0]["image"], spec.get("initContainers")), (&json!("shop:v1"), None));
}

#[test]
fn init_containers_are_kept_with_their_probes_and_waiters_are_dropped() {
    let sidecar = json!({ "name": "proxy", "restartPolicy": "Always", "startupProbe": { "grpc": { "port": 1 } },
        "livenessProbe": { "grpc": { "port": 1 } }, "readinessProbe": { "grpc": { "port": 1 } },
        "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } } });
    let plain = json!({ "name": "config", "command": ["render"] });
    let init = json!([{ "name": "migrate-wait-shop" }, plain, { "name": "migrate-wait-other" }, sidecar]);
    let spec = cleaned(json!({ "initContainers": init }), json!({}));
    assert_eq!(spec["initContainers"], json!([plain, sidecar]));
}

#[test]
fn a_template_with_waiters_alone_has_no_init_containers() {
    let spec = cleaned(json!({ "initContainers": [{ "name": "migrate-wait-shop" }] }), json!({}));
    assert_eq!(spec.get("initContainers"), None);
}

#[rstest]
#[case::host_port(json!({}), json!({ "ports": [{ "containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1" }] }), "/ports", Some(json!([{ "containerPort": 80 }])))]
#[case::every_port_with_host_network(json!({ "hostNetwork": true }), json!({ "ports": [{ "containerPort": 80 }] }), "/ports", None)]
#[case::restart_rules(json!({}), json!({ "restartPolicyRules": [{ "action": "RestartAllContainers" }] }), "/restartPolicyRules", None)]
#[case::restart_policy(json!({}), json!({ "restartPolicy": "OnFailure" }), "/restartPolicy", None)]
#[case::resize_policy(json!({}), json!({ "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }] }), "/resizePolicy", None)]
#[case::native_sidecar(json!({}), json!({ "restartPolicy": "Always" }), "/restartPolicy", Some(json!("Always")))]
fn what_a_container_beside_the_migration_has(
    #[case] spec: Value,
    #[case] container: Value,
    #[case] path: &str,
    #[case] expected: Option<Value>,
) {
    assert_eq!(beside(spec, container).pointer(path).cloned(), expected);
}

#[rstest]
#[case::start_up("/startupProbe/httpGet/port", json!({ "startupProbe": { "httpGet": { "port": "http" } } }))]
#[case::liveness("/livenessProbe/tcpSocket/port", json!({ "livenessProbe": { "tcpSocket": { "port": "http" } } }))]
#[case::hook("/lifecycle/preStop/httpGet/port", json!({ "lifecycle": { "preStop": { "httpGet": { "port": "http" } } } }))]
fn with_host_network_the_name_of_a_port_becomes_its_number(#[case] path: &str, #[case] container: Value) {
    let ports = json!({ "restartPolicy": "Always", "ports": [{ "name": "http", "containerPort": 80 }] });
    let sidecar = beside(json!({ "hostNetwork": true }), with(ports, container));
    assert_eq!(sidecar.pointer(path), Some(&json!(80)));
}

#[test]
fn kept_containers_go_last_in_the_order_of_the_list() {
    let containers = ["app", "proxy", "logger", "vault"].map(|name| json!({ "name": name }));
    let spec = json!({ "containers": containers, "initContainers": [{ "name": "config" }] });
    let migrator = json!({ "keepContainers": ["vault", "proxy", "vault"] });
    let spec = pod_spec(migrator, &template(spec, json!({})));
    assert_eq!(names(&spec, "initContainers"), ["config", "vault", "proxy"]);
    assert_eq!(names(&spec, "containers"), ["migrations"]);
    assert_eq!(spec["initContainers"][2]["restartPolicy"], json!("Always"));
}

#[rstest]
#[case::readiness_starts(
    json!({ "readinessProbe": { "httpGet": { "port": 1 }, "successThreshold": 3, "failureThreshold": 3, "periodSeconds": 5 } }),
    json!({ "startupProbe": { "httpGet": { "port": 1 }, "failureThreshold": 120, "periodSeconds": 5 } })
)]
#[case::with_the_usual_period(
    json!({ "readinessProbe": { "grpc": { "port": 1 } } }),
    json!({ "startupProbe": { "grpc": { "port": 1 }, "failureThreshold": 60 } })
)]
#[case::more_patient_than_that(
    json!({ "readinessProbe": { "grpc": { "port": 1 }, "failureThreshold": 900 } }),
    json!({ "startupProbe": { "grpc": { "port": 1 }, "failureThreshold": 900 } })
)]
#[case::start_up_probe_of_its_own(
    json!({ "readinessProbe": { "grpc": { "port": 1 } }, "startupProbe": { "grpc": { "port": 2 } } }),
    json!({ "readinessProbe": { "grpc": { "port": 1 } }, "startupProbe": { "grpc": { "port": 2 } } })
)]
#[case::liveness_and_hooks_stay(
    json!({ "livenessProbe": { "grpc": { "port": 1 } }, "lifecycle": { "postStart": { "exec": { "command": ["wait"] } } } }),
    json!({ "livenessProbe": { "grpc": { "port": 1 } }, "lifecycle": { "postStart": { "exec": { "command": ["wait"] } } } })
)]
#[case::port_of_the_node(json!({ "ports": [{ "containerPort": 1, "hostPort": 1 }] }), json!({ "ports": [{ "containerPort": 1 }] }))]
#[case::unknown_to_this_build(json!({ "future": 1 }), json!({ "future": 1 }))]
fn a_kept_container_is_a_native_sidecar(#[case] proxy: Value, #[case] expected: Value) {
    let whole = json!({ "name": "proxy", "image": "proxy:1", "restartPolicy": "Always" });
    assert_eq!(kept(json!({}), proxy), with(whole, expected));
}

/// They are in the run already.
#[rstest]
#[case::native_sidecar(json!({ "name": "proxy", "restartPolicy": "Always" }))]
#[case::init_container(json!({ "name": "proxy" }))]
fn keeping_an_init_container_changes_nothing(#[case] init: Value) {
    let template = template(json!({ "initContainers": [init] }), json!({}));
    let spec = pod_spec(json!({ "keepContainers": ["proxy"] }), &template);
    assert_eq!(spec["initContainers"], json!([init]));
}

#[rstest]
#[case::no_such_key_container(
    json!({ "container": "web" }), json!({}), Reason::ContainerNotFound,
    &["spec.container \"web\"", "app, proxy", "spec.templateSelector"]
)]
#[case::no_such_sidecar(
    json!({ "keepContainers": ["vault"] }), json!({}), Reason::ContainerNotFound,
    &["spec.keepContainers \"vault\"", "choose from: proxy", "spec.templateSelector"]
)]
#[case::the_key_container_kept(
    json!({ "keepContainers": ["app"] }), json!({}), Reason::InvalidSpec,
    &["spec.keepContainers \"app\"", "remove it"]
)]
#[case::an_init_container_called_migrations(
    json!({}), json!({ "initContainers": [{ "name": "migrations" }] }), Reason::InvalidSpec,
    &["\"migrations\"", "rename it"]
)]
#[case::no_containers(json!({}), json!({ "containers": [] }), Reason::ContainerNotFound, &["(the first)", "choose from: none"])]
fn what_no_run_can_be_made_of_is_refused_with_field_and_fix(
    #[case] migrator: Value,
    #[case] spec: Value,
    #[case] reason: Reason,
    #[case] said: &[&str],
) {
    let refusal = run(migrator, &World::new().snapshot(), &with_proxy(spec, json!({}))).unwrap_err();
    assert_eq!(refusal.reason, reason);
    for part in said {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

/// A reference that leads nowhere keeps a Pod from starting.
#[test]
fn references_to_the_key_container_follow_its_name_and_those_to_dropped_ones_go() {
    let of = |name: &str| json!({ "containerName": name, "resource": "limits.memory" });
    let item = |name: &str| json!({ "path": name, "resourceFieldRef": of(name) });
    let variable =
        |container: &str| json!({ "name": container, "valueFrom": { "resourceFieldRef": of(container) } });
    let spec = json!({
        "containers": [
            { "name": "app", "image": "shop:v1", "env": [variable("app"), variable("logger")] },
            { "name": "logger", "image": "logger:1" },
        ],
        "volumes": [{ "name": "info", "projected": { "sources": [{ "downwardAPI": { "items": [item("app"), item("logger")] } }] } }],
    });
    let spec = pod_spec(json!({}), &template(spec, json!({})));
    let reference = json!({ "containerName": "migrations", "resource": "limits.memory" });
    assert_eq!(
        spec["containers"][0]["env"],
        json!([{ "name": "app", "valueFrom": { "resourceFieldRef": reference } }])
    );
    let items = spec.pointer("/volumes/0/projected/sources/0/downwardAPI/items");
    assert_eq!(items, Some(&json!([{ "path": "app", "resourceFieldRef": reference }])));
}
