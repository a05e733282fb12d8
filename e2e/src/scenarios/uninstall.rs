//! The operator may go at any moment: no Pod is refused after it, and what waits goes on once it is back.

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment};
use crate::command;
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// Uninstalled as the README has it, which keeps Migrators, while a migration runs and Pods wait for it.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "uninstall")?;
    playground.gate(UNTIL_LET_GO)?;
    playground.apply(&deployment("web", "shop", V1, 1))?;
    let job = playground.migrating()?;
    playground.apply(&deployment("freed", "shop", V1, 1))?;
    for component in ["web", "freed"] {
        let selector = format!("--selector=component={component}");
        playground.wait(&["pods", &selector, "--for=create"])?;
        let waits = "--for=jsonpath={.status.initContainerStatuses[0].state.running.startedAt}";
        playground.wait(&["pods", &selector, waits])?;
    }

    let tried = uninstall(environment).and_then(|()| without_operator(&playground, &job));
    environment.install_operator()?;
    tried?;
    // Its waiter knows the former operator: it trusts and finds the new one once the node has the new bundle.
    playground.let_go()?;
    playground.wait(&["migrator", "shop", &format!("--for=jsonpath={{.status.done[0].key}}={V1}")])?;
    playground.run(&["rollout", "status", "deployment/web", "--timeout=240s"])?;
    playground.settled()?;
    playground.expect_runs(&[V1])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn uninstall(environment: &Environment) -> Result<()> {
    let cluster = environment.cluster();
    command::run(cluster.kubectl().args([
        "delete",
        "mutatingwebhookconfigurations,clusterrolebindings,clusterroles",
        "--selector",
        "app.kubernetes.io/part-of=migrations-operator",
    ]))?;
    command::run(cluster.kubectl().args(["delete", "namespace", "migrations-operator", "--timeout=180s"]))?;
    let left = command::output(cluster.kubectl().args([
        "get",
        "mutatingwebhookconfigurations",
        "--output",
        "yaml",
    ]))?;
    ensure!(!left.contains("migrations.coderanger.net"), "a webhook entry is left:\n{left}");
    Ok(())
}

fn without_operator(playground: &Playground<'_>, job: &str) -> Result<()> {
    // The definition of Migrators outlives the operator, and with it the Migrator and its run.
    ensure!(!playground.status()?.is_null(), "the Migrator has no record any more");
    playground.run(&["exec", job, "--", "true"]).context("the migration no longer runs")?;
    // The second would have to wait, were there an operator.
    for (name, app) in [("unrelated", "other"), ("ungated", "shop")] {
        playground.apply(&deployment(name, app, V2, 1))?;
        playground.rolled_out(name)?;
        playground.run(&["delete", "deployment", name, "--cascade=foreground"])?;
    }
    // What waits by then is let go by hand; kubelets take a while to tell it.
    let annotation = "migrations.coderanger.net/no-wait=true";
    playground.run(&["annotate", "pods", "--selector=component=freed", annotation])?;
    playground.run(&["rollout", "status", "deployment/freed", "--timeout=240s"])?;
    playground.run(&["delete", "deployment", "freed", "--cascade=foreground"])?;
    let pods = playground.list("pods")?;
    ensure!(
        pods.iter().any(|pod| pod["metadata"]["labels"]["component"] == "web"),
        "the Pod that waits is gone"
    );
    Ok(())
}
