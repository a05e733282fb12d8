//! A migration that fails is tried again after a pause, and Pods start once an attempt succeeds.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, deployment, migrator, ran, started};
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";
const SCRIPT: &str = "test -e /database/is-up || { echo 'the database is down' >&2; exit 1; }";
/// Pause before the second attempt, in seconds.
const PAUSE: i64 = 10;

/// What the migration needs comes after the first attempt.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "attempts")?;
    let mut patient = migrator(SCRIPT);
    patient["spec"]["backoffLimit"] = 3.into();
    playground.apply(&patient)?;
    playground.settled()?;
    playground.apply(&database(&json!({})))?;
    playground.apply(&web())?;

    playground.wait_for_reason("BackOff")?;
    let message = playground.status()?["conditions"][0]["message"].to_string();
    ensure!(
        message.contains("the database is down") && message.contains("attempt 1 of 4"),
        "the condition doesn't show the attempt and its output: {message}"
    );
    let early = playground.members()?.into_iter().find(|pod| started(pod).is_some());
    ensure!(early.is_none(), "a Pod started after a failed attempt: {}", early.unwrap_or_default());

    playground.apply(&database(&json!({ "is-up": "" })))?;
    playground.rolled_out("web")?;
    playground.settled()?;
    playground.expect_runs(&[IMAGE])?;
    let last = playground.history()?.remove(0);
    ensure!(
        last["attempts"] == 2 && last["result"] == "Succeeded",
        "expected the second attempt to succeed, and one record of both: {last}"
    );
    paused(&playground)?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// Both attempts' Pods are kept for their logs, and tell when they ran.
fn paused(playground: &Playground<'_>) -> Result<()> {
    let mut runs: Vec<_> = playground.run_pods()?.iter().filter_map(ran).collect();
    runs.sort();
    let [(_, failed), (again, _)] = &runs[..] else {
        anyhow::bail!("both attempts should have left a Pod that ended, but these did: {runs:?}")
    };
    let seconds = |text: &String| text.parse().map(Timestamp::as_second).context("a time of a Pod");
    let pause = seconds(again)? - seconds(failed)?;
    // Both are whole seconds.
    ensure!(pause >= PAUSE - 1, "the second attempt came {pause} s after the first, not {PAUSE} s");
    Ok(())
}

/// The Pods' template stays as it is while what it mounts changes.
fn web() -> Value {
    let mut web = deployment("web", "shop", IMAGE, 2);
    let pod = &mut web["spec"]["template"]["spec"];
    pod["volumes"] = json!([{ "name": "database", "configMap": { "name": "database" } }]);
    pod["containers"][0]["volumeMounts"] = json!([{ "name": "database", "mountPath": "/database" }]);
    web
}

fn database(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "database" }, "data": data })
}
