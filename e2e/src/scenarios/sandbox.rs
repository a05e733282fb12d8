//! A Pod whose sandbox is lost starts again at once, whether or not there is an operator to ask.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Outcome;
use super::outage::scale_operator;
use super::playground::{Playground, deployment, started};
use crate::command;
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";
const RELEASED: &str = "migrations.coderanger.net/released";
const WAITER: &str = "migrate-wait-shop";

/// A serving Pod's sandbox is ended on its node, as it is by a reboot, once without an operator and once with it.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "sandbox")?;
    playground.gate("true")?;
    playground.apply(&deployment("web", "shop", IMAGE, 1))?;
    playground.rolled_out("web")?;
    let marked = until_marked(&playground)?;

    scale_operator(environment, 0)?;
    let tried = loses_its_sandbox(environment, &playground, &marked);
    scale_operator(environment, 2)?;
    tried.context("without an operator")?;
    loses_its_sandbox(environment, &playground, &marked).context("with the operator back")?;
    playground.expect_runs(&[IMAGE])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// Waits until the operator has marked the one Pod; returns its name.
fn until_marked(playground: &Playground<'_>) -> Result<String> {
    for _ in 0..300 {
        let pod = the_pod(playground)?;
        let (uid, name) = (&pod["metadata"]["uid"], &pod["metadata"]["name"]);
        if pod["metadata"]["annotations"][RELEASED] == *uid {
            return Ok(name.as_str().context("a Pod without a name")?.to_owned());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("no Pod was annotated {RELEASED} after its release")
}

fn loses_its_sandbox(environment: &Environment, playground: &Playground<'_>, name: &str) -> Result<()> {
    let before = the_pod(playground)?;
    end_sandbox(environment, &before)?;
    for _ in 0..600 {
        let pod = the_pod(playground)?;
        ensure!(pod["metadata"]["name"] == name, "it was replaced instead of started again");
        if started(&pod).is_some_and(|again| Some(again) != started(&before)) {
            ensure!(waits(&pod) > waits(&before), "its init containers did not run again");
            let said = playground.ask(&["logs", name, "--container", WAITER])?;
            ensure!(said.contains("released before"), "its waiter did more than look at the Pod: {said}");
            return playground.wait(&["pod", name, "--for=condition=Ready"]);
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("the Pod did not start again:\n{}", the_pod(playground)?["status"])
}

/// How often the waiter was started again.
fn waits(pod: &Value) -> u64 {
    let all = pod["status"]["initContainerStatuses"].as_array().into_iter().flatten();
    all.filter(|it| it["name"] == WAITER).filter_map(|it| it["restartCount"].as_u64()).sum()
}

fn the_pod(playground: &Playground<'_>) -> Result<Value> {
    let [pod] = <[Value; 1]>::try_from(playground.members()?)
        .map_err(|pods| anyhow::anyhow!("{} Pods, not one", pods.len()))?;
    Ok(pod)
}

/// Kills what holds the Pod's namespaces. Its kubelet makes a new sandbox and starts everything anew.
fn end_sandbox(environment: &Environment, pod: &Value) -> Result<()> {
    let engine = environment.cluster().engine();
    let node = pod["spec"]["nodeName"].as_str().context("a Pod without a node")?;
    let uid = pod["metadata"]["uid"].as_str().context("a Pod without a uid")?;
    let containerd = || {
        let mut docker = engine.docker();
        docker.args(["exec", node, "ctr", "--namespace", "k8s.io"]);
        docker
    };
    let filter = format!(r#"labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==sandbox"#);
    let found = command::output(containerd().args(["containers", "list", "--quiet", &filter]))?;
    let sandboxes: Vec<_> = found.lines().collect();
    ensure!(!sandboxes.is_empty(), "containerd on {node} knows no sandbox of Pod {uid}");
    for sandbox in sandboxes {
        // Those of the past have no task any more.
        command::succeeds(containerd().args(["tasks", "kill", "--signal", "SIGKILL", sandbox]));
    }
    Ok(())
}
