//! An outage of the operator holds back only Pods whose migration is still to come.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, deployment, started};
use crate::command;
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// Both programs are gone while Pods come and go.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "outage")?;
    playground.gate("true")?;
    playground.apply(&deployment("web", "shop", V1, 1))?;
    playground.rolled_out("web")?;
    // The entry lets the image past a moment after it is done.
    entry_skips(&playground, V1)?;

    let tried = scale_operator(environment, 0).and_then(|()| without_operator(&playground));
    scale_operator(environment, 2)?;
    tried?;
    playground.run(&["rollout", "restart", "deployment/web"])?;
    playground.rolled_out("web")?;
    playground.expect_runs(&[V1, V2])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn without_operator(playground: &Playground<'_>) -> Result<()> {
    playground.apply(&deployment("unrelated", "other", V1, 1))?;
    playground.rolled_out("unrelated")?;
    playground.run(&["scale", "deployment/web", "--replicas=3"])?;
    playground.rolled_out("web")?;

    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.wait(&["deployment", "web", "--for=condition=ReplicaFailure"])?;
    let passed = playground.list("pods")?;
    let passed =
        passed.iter().find(|pod| pod["spec"]["containers"][0]["image"] == V2 && started(pod).is_some());
    ensure!(passed.is_none(), "a Pod of an image that is not migrated started while the operator was gone");
    Ok(())
}

fn entry_skips(playground: &Playground<'_>, image: &str) -> Result<()> {
    for _ in 0..100 {
        if playground.ask(&["get", "mutatingwebhookconfigurations", "--output", "yaml"])?.contains(image) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("no webhook entry lets Pods of {image} past")
}

/// Has each of the operator's programs run so many times, or not at all.
pub(super) fn scale_operator(environment: &Environment, replicas: u32) -> Result<()> {
    let operator = |arguments: &[&str]| {
        let mut kubectl = environment.cluster().kubectl();
        command::run(kubectl.args(["--namespace", "migrations-operator"]).args(arguments))
    };
    let names = ["migrations-controller", "migrations-webhook"];
    // Both before either is waited for: the controller isn't ready without the webhook.
    for name in names {
        operator(&["scale", "deployment", name, &format!("--replicas={replicas}")])?;
    }
    for name in names {
        if replicas == 0 {
            let selector = format!("app.kubernetes.io/name={name}");
            operator(&["wait", "pods", "--selector", &selector, "--for=delete", "--timeout=120s"])?;
        } else {
            operator(&["rollout", "status", &format!("deployment/{name}"), "--timeout=120s"])?;
        }
    }
    Ok(())
}
