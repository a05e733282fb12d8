//! A namespace for one scenario, with small objects to try a promise on, used through kubectl as users would.

use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::command;
use crate::environment::Environment;

/// The Migrator of a playground, and the label value of the Pods that it selects.
pub(crate) const SHOP: &str = "shop";

/// A migration that lasts until [`Playground::let_go`].
pub(crate) const UNTIL_LET_GO: &str = "until test -e /tmp/go; do sleep 0.2; done";

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

    /// Its name.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
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
        self.await_with(&[&["wait", PATIENCE], arguments].concat())
    }

    /// Waits until the Migrator's `Ready` has this reason.
    pub(crate) fn wait_for_reason(&self, reason: &str) -> Result<()> {
        let ready = format!("--for=jsonpath={{.status.conditions[?(@.type==\"Ready\")].reason}}={reason}");
        self.wait(&["migrator", SHOP, &ready])
    }

    /// Waits until a migration's container runs; returns its Job.
    pub(crate) fn migrating(&self) -> Result<String> {
        self.wait(&["migrator", SHOP, "--for=jsonpath={.status.current.jobUid}"])?;
        let status = self.status()?;
        let job = status["current"]["job"].as_str().context("a run ended before it was seen to run")?;
        let selector = format!("--selector=batch.kubernetes.io/job-name={job}");
        self.wait(&["pods", &selector, "--for=create"])?;
        self.wait(&["pods", &selector, "--for=jsonpath={.status.phase}=Running"])?;
        Ok(format!("job/{job}"))
    }

    /// Ends a migration that runs [`UNTIL_LET_GO`].
    pub(crate) fn let_go(&self) -> Result<()> {
        let job = self.migrating()?;
        self.run(&["exec", &job, "--", "touch", "/tmp/go"])
    }

    /// Waits until the rollout of a Deployment is over.
    pub(crate) fn rolled_out(&self, deployment: &str) -> Result<()> {
        self.rollout_over("deployment", deployment)
    }

    /// Waits until the rollout of a workload of any kind is over.
    pub(crate) fn rollout_over(&self, kind: &str, name: &str) -> Result<()> {
        self.await_with(&["rollout", "status", PATIENCE, kind, name])
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

    /// Runs that ended, as the Migrator's status has them, newest first.
    pub(crate) fn history(&self) -> Result<Vec<Value>> {
        Ok(self.status()?["history"].as_array().cloned().unwrap_or_default())
    }

    /// Fails unless exactly these images were migrated, oldest first, each once: by the Migrator's word and by the Pods
    /// that the cluster says were made for it.
    pub(crate) fn expect_runs(&self, images: &[&str]) -> Result<()> {
        let history = self.history()?;
        let ran: Vec<_> = history.iter().rev().filter_map(|run| run["image"].as_str()).collect();
        ensure!(ran == images, "these images were migrated: {ran:?}, not {images:?}");
        let attempts: u64 = history.iter().filter_map(|run| run["attempts"].as_u64()).sum();
        let pods = self.run_pods_ever()?;
        ensure!(
            pods.len() as u64 == attempts,
            "the Migrator tells of {attempts} attempts, the cluster of {} Pods of runs: {pods:?}",
            pods.len()
        );
        self.expect_job_for_last_run(&history)
    }

    /// Fails unless the last run's Job looks to everybody else as it does to the Migrator.
    fn expect_job_for_last_run(&self, history: &[Value]) -> Result<()> {
        let Some(last) = history.first() else { return Ok(()) };
        let job = format!("job/{}", last["job"].as_str().unwrap_or_default());
        let condition = if last["result"] == "Succeeded" { "Complete" } else { "Failed" };
        self.wait(&[&job, &format!("--for=condition={condition}")])
            .with_context(|| format!("{job} should be {condition}, as the Migrator's history has it: {last}"))
    }

    /// The Pods of runs that are still there.
    pub(crate) fn run_pods(&self) -> Result<Vec<Value>> {
        let mut pods = self.list("pods")?;
        pods.retain(|pod| pod["metadata"]["labels"]["migrations"] == SHOP);
        Ok(pods)
    }

    /// The Pods that the selector means.
    pub(crate) fn members(&self) -> Result<Vec<Value>> {
        let mut pods = self.list("pods")?;
        pods.retain(|pod| pod["metadata"]["labels"]["app"] == SHOP);
        Ok(pods)
    }

    /// What the cluster says of each Pod that was ever made for a Job of the Migrator: the Job's name and that message.
    fn run_pods_ever(&self) -> Result<Vec<String>> {
        let of_run = |event: &Value| {
            let (job, message) = (event["involvedObject"]["name"].as_str()?, event["message"].as_str()?);
            let ours = event["involvedObject"]["kind"] == "Job" && job.starts_with(&format!("{SHOP}-"));
            (ours && event["reason"] == "SuccessfulCreate").then(|| format!("{job}: {message}"))
        };
        Ok(self.list("events")?.iter().filter_map(of_run).collect())
    }

    /// Runs what waits; a failure says how things stood by then.
    fn await_with(&self, arguments: &[&str]) -> Result<()> {
        self.run(arguments).map_err(|error| anyhow!("{error:#}\n{}", self.standing()))
    }

    /// Where the Migrator and the Pods stand, for a person.
    fn standing(&self) -> String {
        let migrator = self.ask(&[
            "get",
            "migrator",
            SHOP,
            "--ignore-not-found",
            "--output",
            "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}",
        ]);
        let pods = self.ask(&["get", "pods", "--show-labels"]);
        let [migrator, pods] = [migrator, pods].map(|it| it.unwrap_or_else(|error| format!("{error:#}")));
        format!("in namespace {} the Migrator said:\n{migrator}\nthe Pods were:\n{pods}", self.namespace)
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
            "template": template(name, app, image),
        },
    })
}

/// A template of Pods that do nothing, and are ready once they run.
pub(crate) fn template(component: &str, app: &str, image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": app, "component": component } }, "spec": pod_spec(image) })
}

/// A Pod that does nothing, and is ready once it runs.
pub(crate) fn pod(name: &str, app: &str, image: &str) -> Value {
    let mut pod = template(name, app, image);
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod
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

/// From when to when the first container of a Pod ran, in whole seconds of UTC; `None` while it hasn't ended.
pub(crate) fn ran(pod: &Value) -> Option<(String, String)> {
    let ended = pod.pointer("/status/containerStatuses/0/state/terminated")?;
    Some((ended["startedAt"].as_str()?.to_owned(), ended["finishedAt"].as_str()?.to_owned()))
}

/// The image that a Pod is of.
pub(crate) fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}
