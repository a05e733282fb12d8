//! What people ask for by annotations of a Migrator: one more run, and an open gate.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment, image, migrator, started};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// v1 is run once more while it serves; v2, whose migration fails, is let through.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "requests")?;
    playground.gate("true")?;
    playground.apply(&deployment("web", "shop", V1, 2))?;
    playground.rolled_out("web")?;
    playground.settled()?;
    one_more_run(&playground)?;
    open_gate(&playground)?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn one_more_run(playground: &Playground<'_>) -> Result<()> {
    let before = serving(playground)?;
    playground.apply(&migrator(UNTIL_LET_GO))?;
    annotate(playground, "run=again")?;
    playground.wait(&["migrator", "shop", "--for=jsonpath={.status.lastHandledRun}=again"])?;
    playground.migrating()?;
    // A Pod that comes meanwhile is not held.
    playground.run(&["scale", "deployment/web", "--replicas=3"])?;
    playground.wait(&["deployment", "web", "--for=jsonpath={.status.availableReplicas}=3"])?;
    playground.let_go()?;
    playground.settled()?;
    playground.expect_runs(&[V1, V1])?;
    let after = serving(playground)?;
    ensure!(after.is_superset(&before), "Pods were replaced or restarted: {before:?} became {after:?}");
    Ok(())
}

fn open_gate(playground: &Playground<'_>) -> Result<()> {
    playground.apply(&migrator("exit 1"))?;
    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.wait(&["migrator", "shop", "--for=condition=Stalled"])?;
    let early = playground.members()?.iter().filter(|pod| image(pod) == V2 && started(pod).is_some()).count();
    ensure!(early == 0, "{early} Pods of v2 started, though its migration failed");

    annotate(playground, "open=true")?;
    playground.rolled_out("web")?;
    playground.wait(&["migrator", "shop", "--for=condition=GateOpen"])?;
    playground.wait(&["event", "--field-selector=reason=GateOpen", "--for=create"])?;

    annotate(playground, "open-")?;
    closed(playground)?;
    playground.run(&["scale", "deployment/web", "--replicas=4"])?;
    playground.wait(&["migrator", "shop", "--for=jsonpath={.status.waiting}=1"])?;
    playground.expect_runs(&[V1, V1, V2])
}

/// kubectl can't wait for a condition to go.
fn closed(playground: &Playground<'_>) -> Result<()> {
    for _ in 0..100 {
        let status = playground.status()?;
        let open = |condition: &Value| condition["type"] == "GateOpen";
        if !status["conditions"].as_array().is_some_and(|conditions| conditions.iter().any(open)) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("the condition GateOpen is there 10 s after the annotation was taken away")
}

fn annotate(playground: &Playground<'_>, change: &str) -> Result<()> {
    let annotation = format!("migrations.coderanger.net/{change}");
    playground.run(&["annotate", "--overwrite", "migrator", "shop", &annotation])
}

/// The Pods whose application runs, each with when it started.
fn serving(playground: &Playground<'_>) -> Result<BTreeSet<String>> {
    let serving = |pod: &Value| Some(format!("{} since {}", pod["metadata"]["name"], started(pod)?));
    playground.members()?.iter().map(|pod| serving(pod).context("a Pod doesn't run")).collect()
}
