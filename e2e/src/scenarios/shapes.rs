//! Pods of every shape wait and are released, and are else what they would have been without a gate.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, SHOP, UNTIL_LET_GO, deployment, migrator, pod, started};
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";

/// Ends at once unless the container may read its token.
const WITH_TOKEN: &str = "cat /var/run/token/token >/dev/null && exec sleep infinity";

/// A Pod, and the class that the cluster puts it in.
struct Shape {
    name: &'static str,
    spec: Value,
    class: &'static str,
    waiters: usize,
}

impl Shape {
    fn new(name: &'static str, class: &'static str, spec: Value) -> Self {
        Self { name, spec, class, waiters: 1 }
    }

    /// A Pod of the shop, with this shape.
    fn pod(&self) -> Value {
        let mut pod = pod(self.name, SHOP, IMAGE);
        if self.waiters > 1 {
            pod["metadata"]["labels"]["second"] = "true".into();
        }
        merge(&mut pod["spec"], &self.spec);
        pod
    }
}

/// One namespace judges Pods as strictly as a namespace can, one lets everything be.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let strict = Playground::new(environment, "shapes-strict")?;
    for limit in limits() {
        strict.apply(&limit)?;
    }
    all_wait_and_start(&strict, &resources("50m", "64Mi", "50m", "64Mi"), &strict_shapes())?;
    strict.remove()?;

    let free = Playground::new(environment, "shapes-free")?;
    let lift = "pod-security.kubernetes.io/enforce=privileged";
    free.run(&["label", "--overwrite", "namespace", "e2e-shapes-free", lift])?;
    all_wait_and_start(&free, &json!({}), &free_shapes())?;
    free.remove()?;
    Ok(Outcome::Passed)
}

fn all_wait_and_start(playground: &Playground<'_>, source: &Value, shapes: &[Shape]) -> Result<()> {
    playground.gate(UNTIL_LET_GO)?;
    let mut second = migrator("true");
    second["metadata"]["name"] = "second".into();
    second["spec"]["selector"] = json!({ "matchLabels": { "second": "true" } });
    playground.apply(&second)?;
    playground.wait(&["migrator", "second", "--for=condition=Ready"])?;

    // The run is cloned from it, so that it has one shape.
    let mut web = deployment("web", "shop", IMAGE, 1);
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = source.clone();
    playground.apply(&web)?;
    playground.migrating()?;
    for shape in shapes {
        playground.apply(&shape.pod()).with_context(|| format!("Pod {} is refused", shape.name))?;
    }
    for shape in shapes {
        let running = "--for=jsonpath={.status.initContainerStatuses[0].state.running.startedAt}";
        playground.wait(&["pod", shape.name, running])?;
    }
    for pod in playground.members()? {
        ensure!(started(&pod).is_none(), "Pod {} did not wait", pod["metadata"]["name"]);
    }

    playground.let_go()?;
    playground.rolled_out("web")?;
    for shape in shapes {
        playground.wait(&["pod", shape.name, "--for=condition=Ready"])?;
    }
    for pod in playground.members()? {
        let Some(shape) = shapes.iter().find(|shape| pod["metadata"]["name"] == shape.name) else { continue };
        as_intended(&pod, shape).with_context(|| format!("Pod {}", shape.name))?;
    }
    Ok(())
}

fn as_intended(pod: &Value, shape: &Shape) -> Result<()> {
    let class = &pod["status"]["qosClass"];
    ensure!(*class == shape.class, "it is in the class {class}, not {}", shape.class);
    let init = pod["spec"]["initContainers"].as_array().context("it has no init containers")?;
    let names: Vec<_> = init.iter().filter_map(|one| one["name"].as_str()).collect();
    let (first, rest) = names.split_at(shape.waiters.min(names.len()));
    let waits = |name: &&str| name.starts_with("migrate-wait-");
    ensure!(
        first.len() == shape.waiters && first.iter().all(waits) && !rest.iter().any(waits),
        "{} waiters should come first: {names:?}",
        shape.waiters
    );
    Ok(())
}

/// What a namespace may demand of each container, waiters too: no container may have what a waiter has by itself.
fn limits() -> [Value; 2] {
    let quota = json!({
        "limits.cpu": "2", "limits.memory": "2Gi", "requests.cpu": "2", "requests.memory": "2Gi",
    });
    let range = json!({
        "type": "Container",
        "min": { "cpu": "20m", "memory": "40Mi" }, "max": { "cpu": "90m", "memory": "96Mi" },
        "default": { "cpu": "60m", "memory": "64Mi" },
    });
    [
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "quota" }, "spec": { "hard": quota } }),
        json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "range" }, "spec": { "limits": [range] } }),
    ]
}

fn strict_shapes() -> Vec<Shape> {
    let with = |name, class, resources: Value| {
        Shape::new(name, class, json!({ "containers": [{ "resources": resources }] }))
    };
    vec![
        with("guaranteed", "Guaranteed", resources("50m", "64Mi", "50m", "64Mi")),
        with("burstable", "Burstable", resources("20m", "48Mi", "90m", "96Mi")),
        with("limited-by-default", "Guaranteed", json!({})),
        Shape { waiters: 2, ..with("two-migrators", "Guaranteed", resources("50m", "64Mi", "50m", "64Mi")) },
    ]
}

fn free_shapes() -> Vec<Shape> {
    let token = |user: Value, command: &str| {
        json!({
            "securityContext": user,
            "containers": [{ "command": ["sh", "-c", command],
                "volumeMounts": [{ "name": "token", "mountPath": "/var/run/token" }] }],
            "volumes": [{ "name": "token", "projected": { "defaultMode": 0o400,
                "sources": [{ "serviceAccountToken": { "path": "token", "audience": "shop" } }] } }],
        })
    };
    let root = json!({ "runAsNonRoot": false, "runAsUser": 0 });
    vec![
        Shape::new("best-effort", "BestEffort", json!({})),
        Shape::new("root", "BestEffort", json!({ "securityContext": root })),
        Shape::new("own-user", "BestEffort", json!({ "securityContext": { "runAsUser": 1_000_650_000 } })),
        Shape::new("names-of-the-node", "BestEffort", json!({ "hostNetwork": true, "dnsPolicy": "Default" })),
        Shape::new(
            "names-of-its-own",
            "BestEffort",
            json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.1"] } }),
        ),
        Shape::new("token-of-the-user", "BestEffort", token(json!({ "runAsUser": 1000 }), WITH_TOKEN)),
        Shape::new("token-of-the-group", "BestEffort", token(json!({ "fsGroup": 2000 }), WITH_TOKEN)),
        Shape::new("token-of-root", "BestEffort", token(root.clone(), WITH_TOKEN)),
        Shape::new(
            "native-sidecar",
            "BestEffort",
            json!({ "initContainers": [{
                "name": "proxy", "image": IMAGE, "restartPolicy": "Always", "command": ["sleep", "infinity"],
            }] }),
        ),
    ]
}

/// Objects field by field, lists item by item.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for (index, value) in from.iter().enumerate() {
                match into.get_mut(index) {
                    Some(item) => merge(item, value),
                    None => into.push(value.clone()),
                }
            }
        }
        (into, from) => into.clone_from(from),
    }
}

fn resources(cpu: &str, memory: &str, cpu_limit: &str, memory_limit: &str) -> Value {
    json!({
        "requests": { "cpu": cpu, "memory": memory },
        "limits": { "cpu": cpu_limit, "memory": memory_limit },
    })
}
