//! The shipped manifests fit the code.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::collections::BTreeSet;

use migrations_api::names;
use migrations_testkit::manifests::{manifest, manifests, port, sample, variable};
use serde_json::{Value, json};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn named(kind: &str) -> BTreeSet<String> {
    let objects = manifests();
    let of_kind = objects.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn configurations() -> BTreeSet<String> {
    let entries = (0..names::ENTRY_SHARDS).map(names::entry_configuration);
    let others = [names::REQUIRED_CONFIGURATION, names::PROBE_CONFIGURATION];
    entries.chain(others.map(str::to_owned)).collect()
}

/// The rule of a role for a resource.
fn rule(kind: &str, role: &str, resource: &str) -> Value {
    let role = manifest(kind, role);
    let rules = role["rules"].as_array().unwrap();
    let found = rules.iter().find(|rule| rule["resources"].as_array().unwrap().contains(&json!(resource)));
    found.unwrap().clone()
}

#[test]
fn the_configurations_are_those_that_the_controller_writes_and_hold_no_entries() {
    assert_eq!(named("MutatingWebhookConfiguration"), configurations());
    for object in manifests() {
        assert!(
            object.get("webhooks").is_none(),
            "applying this would remove the controller's entries: {object}"
        );
    }
}

#[test]
fn the_controllers_rights_are_limited_to_the_operators_own_names() {
    let rule_names =
        |rule: Value| -> BTreeSet<String> { serde_json::from_value(rule["resourceNames"].clone()).unwrap() };
    let controller = "migrations-controller";
    assert_eq!(
        rule_names(rule("ClusterRole", controller, "mutatingwebhookconfigurations")),
        configurations()
    );
    assert_eq!(
        rule_names(rule("ClusterRole", controller, "configmaps")),
        [names::CA_BUNDLE_CONFIG_MAP.to_owned()].into()
    );
    let secrets = [names::CA_SECRET, names::SERVING_SECRET].map(str::to_owned);
    assert_eq!(rule_names(rule("Role", controller, "secrets")), secrets.into());
    assert_eq!(
        rule_names(rule("Role", "migrations-webhook", "secrets")),
        [names::SERVING_SECRET.to_owned()].into()
    );
    assert_eq!(
        rule_names(rule("Role", "migrations-webhook", "services")),
        [names::WEBHOOK_SERVICE.to_owned()].into()
    );
}

#[test]
fn the_webhook_may_write_nothing() {
    for kind in ["ClusterRole", "Role"] {
        let role = manifest(kind, "migrations-webhook");
        // A TokenReview is an answer, and is kept nowhere.
        let rules = role["rules"].as_array().unwrap().iter();
        for rule in rules.filter(|rule| rule["resources"] != json!(["tokenreviews"])) {
            assert_eq!(rule["verbs"], json!(["list", "watch"]), "{rule}");
        }
    }
}

#[test]
fn each_program_has_two_replicas_and_its_rollouts_and_drains_leave_one() {
    for name in ["migrations-controller", "migrations-webhook"] {
        let deployment = manifest("Deployment", name);
        assert_eq!(deployment["spec"]["replicas"], 2, "{name}");
        assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "{name}");
        let budget = manifest("PodDisruptionBudget", name);
        assert_eq!(budget["spec"]["minAvailable"], 1, "{name}");
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let selected = budget["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(selected.iter().all(|(key, value)| labels[key] == *value), "{name}");
    }
}

#[test]
fn the_service_leads_to_the_webhooks_ports() {
    let service = manifest("Service", names::WEBHOOK_SERVICE);
    assert_eq!(
        service["spec"]["ports"],
        json!([
            { "name": "admission", "port": names::ADMISSION_PORT, "targetPort": "admission" },
            { "name": "questions", "port": names::QUESTION_PORT, "targetPort": "questions" },
        ])
    );
    let deployment = manifest("Deployment", "migrations-webhook");
    assert_eq!(service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]);
}

#[test]
fn the_component_for_the_nodes_network_fits_the_webhook() {
    let text = include_str!("../../../manifests/host-network/kustomization.yaml");
    let component: Value = serde_yaml_ng::from_str(text).unwrap();
    let [patch, namespace] = component["patches"].as_array().unwrap().as_slice() else {
        panic!("{component}")
    };
    assert_eq!(patch["target"], json!({ "kind": "Deployment", "name": names::WEBHOOK_SERVICE }));
    assert_eq!(namespace["target"], json!({ "kind": "Namespace", "name": names::OPERATOR_NAMESPACE }));
    let patch: json_patch::Patch = serde_yaml_ng::from_str(patch["patch"].as_str().unwrap()).unwrap();
    let mut deployment = manifest("Deployment", names::WEBHOOK_SERVICE);
    json_patch::patch(&mut deployment, &patch).unwrap();
    let deployment: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(deployment).unwrap();
    let spec = deployment.spec.unwrap();
    let pod = spec.template.spec.unwrap();
    assert_eq!((pod.host_network, pod.dns_policy.as_deref()), (Some(true), Some("ClusterFirstWithHostNet")));
    let ports: Vec<_> = pod.containers[0].ports.iter().flatten().map(|port| port.container_port).collect();
    assert!(ports.contains(&i32::from(names::ADMISSION_LISTEN_PORT)));
    assert!(text.contains(&names::ADMISSION_LISTEN_PORT.to_string()));
}

#[test]
fn everything_is_in_the_operators_namespace() {
    assert_eq!(named("Namespace"), [names::OPERATOR_NAMESPACE.to_owned()].into());
    for object in manifests() {
        let namespace = &object["metadata"]["namespace"];
        assert!(namespace.is_null() || namespace == names::OPERATOR_NAMESPACE, "{object}");
    }
}

/// Kustomize puts them in; see `helm.rs` for what comes out.
#[test]
fn owner_and_version_are_said_in_the_kustomization_alone() {
    let kustomization: Value =
        serde_yaml_ng::from_str(include_str!("../../../manifests/kustomization.yaml")).unwrap();
    let images: Value = serde_json::from_str(include_str!("../../../nix/images.json")).unwrap();
    let registry = images["registry"].as_str().unwrap();
    let expected = ["controller", "webhook", "waiter"].map(|program| {
        let name = format!("migrations-{program}");
        json!({ "name": name, "newName": format!("{registry}/{name}"), "newTag": VERSION })
    });
    assert_eq!(kustomization["images"], json!(expected));
    assert_eq!(kustomization["labels"][0]["pairs"]["app.kubernetes.io/version"], VERSION);
    for program in ["controller", "webhook"] {
        let name = format!("migrations-{program}");
        let deployment = manifest("Deployment", &name);
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], name);
    }
    assert_eq!(variable("migrations-webhook", "WAITER_IMAGE"), "migrations-waiter");
}

#[test]
fn metrics_are_collected_from_both_programs() {
    let monitor: Value =
        serde_yaml_ng::from_str(include_str!("../../../manifests/pod-monitor/pod-monitor.yaml")).unwrap();
    assert_eq!(monitor["metadata"]["namespace"], names::OPERATOR_NAMESPACE);
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let selected = &monitor["spec"]["selector"]["matchExpressions"][0];
    for name in ["migrations-controller", "migrations-webhook"] {
        assert!(port(name, endpoint["port"].as_str().unwrap()) > 0);
        let labels = manifest("Deployment", name)["spec"]["template"]["metadata"]["labels"].clone();
        assert!(selected["values"].as_array().unwrap().contains(&labels[selected["key"].as_str().unwrap()]));
    }
}

/// The ports of a rule, as JSON: names and numbers.
fn ports_of(rule: &Value) -> BTreeSet<String> {
    rule["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string()).collect()
}

#[test]
fn nothing_reaches_the_operator_or_is_reached_by_it_but_by_the_ports_that_it_needs() {
    let deny = manifest("NetworkPolicy", "default-deny");
    assert_eq!(deny["spec"], json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    let mut open = BTreeSet::new();
    for policy in manifests().iter().filter(|object| object["kind"] == "NetworkPolicy") {
        for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
            open.extend(ports_of(rule));
        }
        for rule in policy["spec"]["egress"].as_array().into_iter().flatten() {
            assert!(
                ports_of(rule).iter().all(|port| port.parse::<u16>().is_ok()),
                "an API server has no named ports: {rule}"
            );
        }
    }
    let mut named = BTreeSet::new();
    for name in ["migrations-controller", "migrations-webhook"] {
        let deployment = manifest("Deployment", name);
        let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
        named.extend(ports.as_array().unwrap().iter().map(|port| port["name"].to_string()));
    }
    assert_eq!(open, named, "a port that is closed, or one that nobody has");
    let webhook = manifest("NetworkPolicy", "migrations-webhook");
    let deployment = manifest("Deployment", "migrations-webhook");
    assert_eq!(webhook["spec"]["podSelector"], deployment["spec"]["selector"]);
    assert!(webhook["spec"]["ingress"][0].get("from").is_none(), "API servers have no labels");
}

#[test]
fn the_sample_for_application_namespaces_leads_to_the_questions() {
    let policy = sample("network-policy.yaml").remove(0);
    let rule = &policy["spec"]["egress"][0];
    assert_eq!(ports_of(rule), [port("migrations-webhook", "questions").to_string()].into());
    let namespace = &rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(namespace, names::OPERATOR_NAMESPACE);
    let deployment = manifest("Deployment", "migrations-webhook");
    assert_eq!(rule["to"][0]["podSelector"], deployment["spec"]["selector"]);
}
