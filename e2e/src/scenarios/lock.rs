//! Migrators that share a lock, in whatever namespaces, never run at the same time.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment, image, migrator, ran};
use crate::command;
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";
const LOCK: &str = "database";

/// Two namespaces with a Migrator each: first one after the other, then both at once.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let (one, two) = (Playground::new(environment, "lock-one")?, Playground::new(environment, "lock-two")?);
    let tried = share_lock(environment, &format!("SHARED_LOCKS={LOCK}")).and_then(|()| tried(&one, &two));
    share_lock(environment, "SHARED_LOCKS-")?;
    tried?;
    one.remove()?;
    two.remove()?;
    Ok(Outcome::Passed)
}

fn tried(one: &Playground<'_>, two: &Playground<'_>) -> Result<()> {
    for playground in [one, two] {
        playground.apply(&with_lock(UNTIL_LET_GO))?;
        playground.settled()?;
    }
    one.apply(&deployment("web", "shop", V1, 1))?;
    one.migrating()?;
    two.apply(&deployment("web", "shop", V1, 1))?;
    two.wait_for_reason("Locked")?;
    let message =
        two.ask(&["get", "migrator", "shop", "--output", "jsonpath={.status.conditions[0].message}"])?;
    ensure!(
        message.contains(LOCK) && message.contains("e2e-lock-one"),
        "a Migrator that waits for the lock doesn't say which, and for whom: {message}"
    );
    for playground in [one, two] {
        playground.let_go()?;
        playground.rolled_out("web")?;
    }

    for playground in [one, two] {
        playground.apply(&with_lock("sleep 3"))?;
        playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    }
    for playground in [one, two] {
        playground.rolled_out("web")?;
        playground.settled()?;
        playground.expect_runs(&[V1, V2])?;
    }
    one_at_a_time(&[one.run_pods()?, two.run_pods()?].concat())
}

/// Of two runs one had ended when the other began.
fn one_at_a_time(pods: &[Value]) -> Result<()> {
    let mut runs: Vec<_> = pods
        .iter()
        .filter_map(|pod| {
            let (started, finished) = ran(pod)?;
            let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
            Some((started, finished, format!("{} in {namespace}", image(pod))))
        })
        .collect();
    runs.sort();
    ensure!(runs.len() == 4, "4 runs left a Pod that ended, not these: {runs:?}");
    for pair in runs.windows(2) {
        let [(_, ended, first), (began, _, second)] = pair else { continue };
        ensure!(ended <= began, "{second} began at {began}, {first} ended at {ended}: {runs:?}");
    }
    Ok(())
}

/// Keeps the Pods of both runs, for their times.
fn with_lock(script: &str) -> Value {
    let mut migrator = migrator(script);
    migrator["spec"]["lock"] = LOCK.into();
    migrator["spec"]["successfulJobsHistoryLimit"] = 2.into();
    migrator
}

/// Gives the controller an environment variable, or takes it back.
fn share_lock(environment: &Environment, variable: &str) -> Result<()> {
    let operator = |arguments: &[&str]| {
        let mut kubectl = environment.cluster().kubectl();
        kubectl.args(["--namespace", "migrations-operator"]).args(arguments);
        // Also when someone asks to stop: the next scenario has the same controller.
        command::run_to_end(&mut kubectl)
    };
    operator(&["set", "env", "deployment/migrations-controller", variable])?;
    operator(&["rollout", "status", "deployment/migrations-controller", "--timeout=120s"])
}
