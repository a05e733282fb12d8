//! The containers of a run (contract §4): the migration's own, and those that it needs beside it.

use std::collections::BTreeMap;

use migrations_api::{Reason, names};
use serde_json::{Map, Value, json};

use super::clean::name_of;
use super::references;
use crate::validate::{Refusal, RunSpec, Valid};

/// Fields of a container that only make sense while it serves, or that the Pod's `restartPolicy`
/// forbids.
const DROPPED_FROM_MIGRATION: [&str; 8] = [
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "startupProbe",
];

/// How long a kept sidecar may take to start, in seconds. A readiness probe never ends a container,
/// a start-up probe does: it must not end one that is merely slow.
const STARTUP_PATIENCE: i64 = 600;

/// Seconds between two probes, where the probe doesn't say (core/v1).
const PROBE_PERIOD: i64 = 10;

/// Which of `containers` is the key container: the named one, else the first.
pub(super) fn key_container_index(containers: &[Value], name: Option<&str>) -> Option<usize> {
    match name {
        Some(name) => position(containers, name),
        None => (!containers.is_empty()).then_some(0),
    }
}

/// Gives the spec the run's containers and init containers. Returns those that the run does without.
pub(super) fn arrange(
    spec: &mut Map<String, Value>,
    valid: &Valid,
    hide_output: bool,
) -> Result<Vec<Value>, Refusal> {
    let mut containers = take_list(spec, "containers");
    let mut init = take_list(spec, "initContainers");
    init.retain(|container| !name_of(container).is_some_and(|name| name.starts_with(names::WAITER_PREFIX)));
    let Some(index) = key_container_index(&containers, valid.container.as_deref()) else {
        let name = valid.container.as_deref().unwrap_or("(the first)");
        return Err(absent("spec.container", name, &containers));
    };
    let key = containers.remove(index);
    let key_name = name_of(&key).unwrap_or_default().to_owned();

    for name in &valid.run.keep_containers {
        if *name == key_name {
            return Err(invalid(format!(
                "spec.keepContainers {name:?} is the container that the run itself is made of; remove it from \
                 the list"
            )));
        }
        if let Some(index) = position(&containers, name) {
            init.push(native_sidecar(containers.remove(index)));
        } else if position(&init, name).is_none() {
            return Err(absent("spec.keepContainers", name, &containers));
        }
    }
    if position(&init, names::RUN_CONTAINER).is_some() {
        return Err(invalid(format!(
            "the Pod template has another container {:?}, which is what the run's own is called; rename it, \
             or remove it if all it does is migrate",
            names::RUN_CONTAINER
        )));
    }
    let host_network = spec.get("hostNetwork") == Some(&json!(true));
    for container in init.iter_mut().filter_map(Value::as_object_mut) {
        suit_a_run(container, host_network);
    }
    if !init.is_empty() {
        spec.insert("initContainers".to_owned(), Value::Array(init));
    }
    spec.insert("containers".to_owned(), json!([migration(key, &valid.run, hide_output)]));
    references::follow(spec, &key_name, &containers);
    Ok(containers)
}

/// The key container as the migration's.
fn migration(mut container: Value, run: &RunSpec, hide_output: bool) -> Value {
    let Some(fields) = container.as_object_mut() else { return container };
    let mut set = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    set("name", json!(names::RUN_CONTAINER));
    // `File` copies what the application itself wrote there, and never its log.
    let policy = if hide_output { "File" } else { "FallbackToLogsOnError" };
    set("terminationMessagePolicy", json!(policy));
    if let Some(image) = &run.image {
        set("image", json!(image));
    }
    if let Some(command) = &run.command {
        set("command", json!(command));
    }
    if let Some(args) = &run.args {
        set("args", json!(args));
    }
    if let Some(resources) = &run.resources {
        set("resources", resources.clone());
    }
    for field in DROPPED_FROM_MIGRATION {
        fields.remove(field);
    }
    if !run.env.is_empty() {
        let env = take_list(fields, "env");
        fields.insert("env".to_owned(), Value::Array(merged(env, &run.env)));
    }
    if !run.env_from.is_empty() {
        let mut sources = take_list(fields, "envFrom");
        sources.extend(run.env_from.iter().cloned());
        fields.insert("envFrom".to_owned(), Value::Array(sources));
    }
    container
}

/// Variables may refer to those before them, so that one which is replaced stays in its place.
fn merged(mut env: Vec<Value>, added: &[Value]) -> Vec<Value> {
    for variable in added {
        let same = |other: &Value| name_of(other) == name_of(variable);
        // Of two of one name the last one counts.
        let Some(place) = env.iter().rposition(same) else {
            env.push(variable.clone());
            continue;
        };
        if let Some(replaced) = env.get_mut(place) {
            *replaced = variable.clone();
        }
    }
    env
}

/// A plain container as a native sidecar, which ends with the run. Its liveness probe and its hooks
/// stay: they keep a proxy alive that the run needs, and a native sidecar has them as well.
fn native_sidecar(mut container: Value) -> Value {
    let Some(fields) = container.as_object_mut() else { return container };
    fields.insert("restartPolicy".to_owned(), json!("Always"));
    if fields.get("startupProbe").is_none_or(Value::is_null)
        && let Some(Value::Object(mut probe)) = fields.remove("readinessProbe")
    {
        let number = |field: &str| probe.get(field).and_then(Value::as_i64);
        let period = number("periodSeconds").unwrap_or(PROBE_PERIOD).max(1);
        let failures = number("failureThreshold").unwrap_or(0).max(STARTUP_PATIENCE / period);
        probe.insert("failureThreshold".to_owned(), json!(failures));
        // A start-up probe may ask for one success only.
        probe.remove("successThreshold");
        fields.insert("startupProbe".to_owned(), Value::Object(probe));
    }
    container
}

/// What a container beside the migration has to lose.
fn suit_a_run(container: &mut Map<String, Value>, host_network: bool) {
    // A rule could start the migration's container again, unseen by the operator.
    container.remove("restartPolicyRules");
    // All but `NotRequired` is refused in a Pod that never restarts.
    container.remove("resizePolicy");
    if container.get("restartPolicy") != Some(&json!("Always")) {
        container.remove("restartPolicy");
    }
    // A port of the node would keep the run from every node with a serving Pod.
    if host_network {
        drop_ports(container);
    } else {
        for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("hostPort");
                port.remove("hostIP");
            }
        }
    }
}

/// With `hostNetwork` the API server makes each port one of the node again, so that none may be
/// listed. A sidecar that binds its port finds it taken beside a serving Pod all the same, which no
/// cleaning can change: its log tells. Probes and hooks that called one by its name get its number.
fn drop_ports(container: &mut Map<String, Value>) {
    let ports = take_list(container, "ports");
    let numbers: BTreeMap<&str, &Value> =
        ports.iter().filter_map(|port| Some((name_of(port)?, port.get("containerPort")?))).collect();
    let users = ["livenessProbe", "readinessProbe", "startupProbe", "postStart", "preStop"];
    for user in users {
        let user = match user {
            "postStart" | "preStop" => container.get_mut("lifecycle").and_then(|hooks| hooks.get_mut(user)),
            probe => container.get_mut(probe),
        };
        let Some(user) = user else { continue };
        for action in ["httpGet", "tcpSocket"] {
            let port = user.get_mut(action).and_then(|action| action.get_mut("port"));
            let Some(port) = port else { continue };
            if let Some(number) = port.as_str().and_then(|name| numbers.get(name)) {
                *port = (*number).clone();
            }
        }
    }
}

fn take_list(fields: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match fields.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn position(containers: &[Value], name: &str) -> Option<usize> {
    containers.iter().position(|container| name_of(container) == Some(name))
}

/// `others`: the template's containers, but for the key container where that is known.
fn absent(field: &str, name: &str, others: &[Value]) -> Refusal {
    let names: Vec<_> = others.iter().filter_map(name_of).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!(
        "{field} {name:?} is not in the Pod template that the run is cloned from (containers to choose from: \
         {names}); name one of these, or choose another template with spec.templateSelector"
    );
    Refusal { reason: Reason::ContainerNotFound, message }
}

fn invalid(message: String) -> Refusal {
    Refusal { reason: Reason::InvalidSpec, message }
}
