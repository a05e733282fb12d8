//! A namespace for one scenario, with small objects to try a promise on, used through kubectl as users would.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command;
use crate::environment::Environment;

/// The Migrator of a playground, and the label value of the Pods that it selects.
pub(crate) const SHOP: &str = "shop";

/// How long anything may take that a scenario waits for.
const PATIENCE: &str = "--timeout=120s";

/// A namespace under the restricted Pod Security profile.
pub(crate) struct Playground<'a> {
    environment: &'a Environment,
    namespace: String,
}

impl<'a> Playground<'a> {
    /// A fresh one; what an earlier run left is deleted.
    pub(crate) fn new(environment: &'a Environment, name: &str) -> Result<Self> {
        let playground = Self { environment, namespace: format!("e2e-{name}") };
        playground.remove()?;
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": playground.namespace,
            "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        }});
        playground.apply(&namespace)?;
        Ok(playground)
    }

    /// Deletes it with all it holds.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut delete = self.environment.cluster().kubectl();
        command::run_to_end(delete.args(["delete", "namespace", &self.namespace, "--ignore-not-found"]))
    }

    /// `kubectl` in it.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut kubectl = self.environment.cluster().kubectl();
        kubectl.args(["--namespace", &self.namespace]).args(arguments);
        kubectl
    }

    /// Runs `kubectl` in it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<()> {
        command::run(&mut self.kubectl(arguments))
    }

    /// What `kubectl` says in it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        command::output(&mut self.kubectl(arguments))
    }

    /// Applies an object.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let mut apply = self.kubectl(&["apply", "--filename", "-"]);
        command::run_with_text(&object.to_string(), &mut apply)
    }

    /// Waits until `kubectl wait` is content.
    pub(crate) fn wait(&self, arguments: &[&str]) -> Result<()> {
        self.run(&[&["wait", PATIENCE], arguments].concat())
    }

    /// Waits until a rollout is over.
    pub(crate) fn rolled_out(&self, deployment: &str) -> Result<()> {
        self.run(&["rollout", "status", PATIENCE, "deployment", deployment])
    }

    /// Waits until the Migrator is ready for good: its gate is in place, and all is migrated.
    pub(crate) fn settled(&self) -> Result<()> {
        self.wait(&["migrator", SHOP, "--for=condition=Ready"])
    }

    /// The objects of a kind, with what kubectl says of them.
    pub(crate) fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let text = self.ask(&["get", kind, "--output", "json"])?;
        let list: Value = serde_json::from_str(&text).with_context(|| format!("kubectl get {kind}"))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The Migrator's status.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.ask(&["get", "migrator", SHOP, "--output", "json"])?;
        Ok(serde_json::from_str::<Value>(&text).context("kubectl get migrator")?["status"].take())
    }

    /// Fails unless exactly these images were migrated, oldest first, each once.
    pub(crate) fn expect_runs(&self, images: &[&str]) -> Result<()> {
        let status = self.status()?;
        let history = status["history"].as_array().cloned().unwrap_or_default();
        let ran: Vec<_> = history.iter().rev().filter_map(|run| run["image"].as_str()).collect();
        ensure!(ran == images, "these images were migrated: {ran:?}, not {images:?}");
        Ok(())
    }

    /// Creates the Migrator, which runs `script`, and waits until Pods are held.
    pub(crate) fn gate(&self, script: &str) -> Result<()> {
        self.apply(&migrator(script))?;
        self.settled()
    }
}

/// The Migrator of Pods labelled `app: shop`.
pub(crate) fn migrator(script: &str) -> Value {
    json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": { "name": SHOP },
        "spec": {
            "selector": { "matchLabels": { "app": SHOP } }, "command": ["sh", "-c", script],
            // What fails here fails again.
            "backoffLimit": 0,
        },
    })
}

/// A Deployment whose Pods do nothing, and are ready once they run.
pub(crate) fn deployment(name: &str, app: &str, image: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": app, "component": name } },
            "template": { "metadata": { "labels": { "app": app, "component": name } }, "spec": pod_spec(image) },
        },
    })
}

/// The smallest Pod that the restricted profile lets pass.
fn pod_spec(image: &str) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [{
            "name": "app", "image": image, "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        }],
    })
}

/// When the application of a Pod started; `None` while it waits.
pub(crate) fn started(pod: &Value) -> Option<String> {
    let state = pod.pointer("/status/containerStatuses/0/state/running/startedAt")?;
    state.as_str().map(str::to_owned)
}
