//! A rolling update of the webhook refuses no Pod.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, template};
use crate::command;
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";

/// Pods that have to wait are created one after another until no Pod of the old webhook is left.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "webhook-rollout")?;
    playground.gate(UNTIL_LET_GO)?;
    let mut pod = template("web", "shop", IMAGE);
    pod["metadata"]["generateName"] = json!("web-");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": pod["metadata"], "spec": pod["spec"] });

    let old = replicas(environment)?;
    ensure!(!old.is_empty(), "there is no webhook");
    command::run(operator(environment).args(["rollout", "restart", "deployment/migrations-webhook"]))?;
    let (mut created, mut left) = (0, old.clone());
    while !left.is_empty() {
        // Admitted like any other, but nobody has to run it.
        let mut create =
            playground.kubectl(&["create", "--dry-run=server", "--output", "name", "--filename", "-"]);
        command::run_with_text(&pod.to_string(), &mut create)
            .with_context(|| format!("Pod {created} of the rollout was refused"))?;
        created += 1;
        left = replicas(environment)?.intersection(&old).cloned().collect();
    }
    ensure!(created > 10, "only {created} Pods were created during the rollout");
    command::run(operator(environment).args([
        "rollout",
        "status",
        "deployment/migrations-webhook",
        "--timeout=120s",
    ]))?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// The names of the webhook's Pods, those that are about to end included.
fn replicas(environment: &Environment) -> Result<BTreeSet<String>> {
    let mut list = operator(environment);
    list.args(["get", "pods", "--selector", "app.kubernetes.io/name=migrations-webhook", "--output", "name"]);
    Ok(command::output(&mut list)?.lines().map(str::to_owned).collect())
}

fn operator(environment: &Environment) -> Command {
    let mut kubectl = environment.cluster().kubectl();
    kubectl.args(["--namespace", "migrations-operator"]);
    kubectl
}
