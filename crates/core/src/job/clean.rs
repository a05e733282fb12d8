//! From a workload's Pod template to the Pod spec of a run, rule by rule (contract §4). A template
//! says how to serve; a run must not serve, wait, or take a serving Pod's place.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use migrations_api::names;
use serde_json::{Map, Value, json};

use crate::selector::Selector;
use crate::validate::{RunSpec, Valid};

/// Fields of a Pod spec that place, name or time a serving Pod, or that the API server filled in
/// for a bare one.
const DROPPED_FROM_POD: [&str; 13] = [
    "activeDeadlineSeconds",
    "ephemeralContainers",
    "hostname",
    "nodeName",
    "preemptionPolicy",
    "priority",
    "readinessGates",
    "restartPolicy",
    "schedulingGates",
    "serviceAccount",
    "setHostnameAsFQDN",
    "subdomain",
    "resourceClaimStatuses",
];

/// Fields of a container that only make sense while it serves.
const DROPPED_FROM_CONTAINER: [&str; 7] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
];

/// Volumes that the API server generates for service account tokens.
const GENERATED_VOLUME: &str = "kube-api-access-";

/// Tolerations that admission adds to every Pod.
const ADMISSION_TOLERATIONS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Which of `containers` is the key container: the named one, else the first.
pub(super) fn key_container_index(containers: &[Value], name: Option<&str>) -> Option<usize> {
    match name {
        Some(name) => containers.iter().position(|container| name_of(container) == Some(name)),
        None => (!containers.is_empty()).then_some(0),
    }
}

/// The run's Pod spec. `None`: the template lacks the key container.
pub(super) fn pod_spec(template: &Value, valid: &Valid) -> Option<Map<String, Value>> {
    let mut spec = template.get("spec")?.as_object()?.clone();
    let labels = labels_of(template);
    for field in DROPPED_FROM_POD {
        spec.remove(field);
    }

    let Some(Value::Array(containers)) = spec.remove("containers") else { return None };
    let index = key_container_index(&containers, valid.container.as_deref())?;
    let container = migration_container(containers.into_iter().nth(index)?, &valid.run)?;
    spec.insert("containers".to_owned(), json!([container]));

    if let Some(Value::Array(init)) = spec.get_mut("initContainers") {
        init.retain(|container| {
            !name_of(container).is_some_and(|name| name.starts_with(names::WAITER_PREFIX))
        });
        init.iter_mut().for_each(drop_host_ports);
    }

    drop_own_affinity(&mut spec, &labels);
    drop_own_spread(&mut spec, &labels);
    if let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") {
        tolerations.retain(|one| !is_admission_toleration(one));
    }
    clean_volumes(&mut spec);

    spec.insert("restartPolicy".to_owned(), json!("Never"));
    spec.insert("readinessGates".to_owned(), json!([{ "conditionType": names::NEVER_READY_GATE }]));
    Some(spec)
}

/// The key container as the migration's.
fn migration_container(mut container: Value, run: &RunSpec) -> Option<Value> {
    let fields = container.as_object_mut()?;
    for field in DROPPED_FROM_CONTAINER {
        fields.remove(field);
    }
    fields.insert("name".to_owned(), json!(names::RUN_CONTAINER));
    fields.insert("terminationMessagePolicy".to_owned(), json!("FallbackToLogsOnError"));
    if let Some(image) = &run.image {
        fields.insert("image".to_owned(), json!(image));
    }
    if let Some(command) = &run.command {
        fields.insert("command".to_owned(), json!(command));
    }
    if let Some(args) = &run.args {
        fields.insert("args".to_owned(), json!(args));
    }
    Some(container)
}

/// Native sidecars keep their ports: others of the Pod may look for them. A port of the node would
/// keep the run from every node that serves.
fn drop_host_ports(container: &mut Value) {
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            port.remove("hostPort");
        }
    }
}

/// Required terms that select the source's own labels: waiting Pods must not keep the run from a
/// node.
fn drop_own_affinity(spec: &mut Map<String, Value>, labels: &BTreeMap<String, String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = spec
            .get_mut("affinity")
            .and_then(|affinity| affinity.get_mut(kind))
            .and_then(|rules| rules.get_mut("requiredDuringSchedulingIgnoredDuringExecution"));
        if let Some(Value::Array(terms)) = terms {
            terms.retain(|term| !selects(term.get("labelSelector"), labels));
        }
    }
}

fn drop_own_spread(spec: &mut Map<String, Value>, labels: &BTreeMap<String, String>) {
    if let Some(Value::Array(constraints)) = spec.get_mut("topologySpreadConstraints") {
        constraints.retain(|constraint| {
            constraint.get("whenUnsatisfiable") != Some(&json!("DoNotSchedule"))
                || !selects(constraint.get("labelSelector"), labels)
        });
    }
}

/// Whether a selector of a scheduling term selects these labels; one that can't be read might.
fn selects(selector: Option<&Value>, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = selector else { return false };
    match serde_json::from_value::<LabelSelector>(selector.clone()).map(|selector| Selector::parse(&selector))
    {
        Ok(Ok(selector)) => selector.matches(labels),
        _ => true,
    }
}

fn is_admission_toleration(toleration: &Value) -> bool {
    let key = toleration.get("key").and_then(Value::as_str).unwrap_or_default();
    ADMISSION_TOLERATIONS.contains(&key) && toleration.get("tolerationSeconds") == Some(&json!(300))
}

/// Generated volumes and the waiter's are dropped with their mounts. A mount without a volume is
/// of a StatefulSet's claim, which belongs to a serving Pod: the run gets an empty directory.
fn clean_volumes(spec: &mut Map<String, Value>) {
    let dropped = |name: &str| name.starts_with(GENERATED_VOLUME) || name == names::WAITER_VOLUME;
    let mut known = BTreeSet::new();
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        volumes.retain(|volume| !name_of(volume).is_some_and(dropped));
        known.extend(volumes.iter().filter_map(name_of).map(str::to_owned));
    }
    let mut missing = BTreeSet::new();
    for kind in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(kind) else { continue };
        for container in containers {
            let Some(Value::Array(mounts)) = container.get_mut("volumeMounts") else { continue };
            mounts.retain(|mount| !name_of(mount).is_some_and(dropped));
            let names = mounts.iter().filter_map(name_of).filter(|name| !known.contains(*name));
            missing.extend(names.map(str::to_owned));
        }
    }
    if !missing.is_empty() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Value::Array(volumes) = volumes {
            volumes.extend(missing.into_iter().map(|name| json!({ "name": name, "emptyDir": {} })));
        }
    }
}

fn labels_of(template: &Value) -> BTreeMap<String, String> {
    let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn name_of(value: &Value) -> Option<&str> {
    value.get("name").and_then(Value::as_str)
}
