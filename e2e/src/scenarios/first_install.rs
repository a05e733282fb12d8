//! A first install is gated whatever the order of its objects, and migrated once.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, deployment, migrator, started};
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";

/// A Deployment that asks to be held comes before its Migrator.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "first-install")?;
    let mut web = deployment("web", "shop", IMAGE, 3);
    let annotations = json!({ "migrations.coderanger.net/required": "true" });
    web["spec"]["template"]["metadata"]["annotations"] = annotations;
    playground.apply(&web)?;
    playground.wait(&["deployment", "web", "--for=condition=ReplicaFailure"])?;
    let refusal = playground.ask(&[
        "get",
        "deployment",
        "web",
        "--output",
        "jsonpath={.status.conditions[?(@.type=='ReplicaFailure')].message}",
    ])?;
    ensure!(refusal.contains("Migrator"), "the refusal doesn't say what to do: {refusal}");
    ensure!(playground.list("pods")?.is_empty(), "a Pod that asks to be held came without a Migrator");

    playground.apply(&migrator("sleep 2"))?;
    playground.rolled_out("web")?;
    playground.settled()?;
    playground.expect_runs(&[IMAGE])?;
    let status = playground.status()?;
    let finished = status["history"][0]["finished"].as_str().unwrap_or_default().to_owned();
    for pod in playground.list("pods")?.iter().filter(|pod| is_web(pod)) {
        let started = started(pod).unwrap_or_default();
        // Whole seconds against microseconds: a start in the same second counts as after.
        ensure!(
            started.get(..19) >= finished.get(..19),
            "a Pod started at {started}, the migration ended at {finished}"
        );
    }
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn is_web(pod: &Value) -> bool {
    pod["metadata"]["labels"]["app"] == "shop"
}
