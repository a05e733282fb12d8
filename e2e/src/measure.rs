//! `cargo e2e measure`: the gate's own share of a rollout. A Deployment of 2 Pods is rolled out from version to
//! version, first with no Migrator, then behind a migration of 2 s; what the second takes longer than the first and the
//! 2 s is the gate's.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::environment::Environment;
use crate::progress::step;
use crate::scenarios::playground::{Playground, deployment};

const VERSIONS: [&str; 3] = ["migrations-app:v2", "migrations-app:v3", "migrations-app:v4"];
const FIRST: &str = "migrations-app:v1";
const MIGRATION: Duration = Duration::from_secs(2);

/// Measures and prints a table.
pub(crate) fn run(environment: &Environment) -> Result<()> {
    let free = Playground::new(environment, "measure-free")?;
    let gated = Playground::new(environment, "measure-gated")?;
    gated.gate(&format!("sleep {}", MIGRATION.as_secs()))?;
    println!("\nrollout of 2 Pods   no Migrator   behind a migration of 2 s   the gate's share");
    let without = rollouts(&free)?;
    let with = rollouts(&gated)?;
    for (version, (without, with)) in VERSIONS.iter().zip(without.iter().zip(&with)) {
        let share = with.saturating_sub(*without).saturating_sub(MIGRATION);
        println!(
            "{version:18}  {:>9.1} s   {:>23.1} s   {:>14.1} s",
            without.as_secs_f64(),
            with.as_secs_f64(),
            share.as_secs_f64()
        );
    }
    println!("\nwhen what happened behind the last migration:");
    println!("{}", timeline(&gated)?);
    free.remove()?;
    gated.remove()
}

/// Rolls a Deployment out from version to version; how long each took.
fn rollouts(playground: &Playground<'_>) -> Result<Vec<Duration>> {
    playground.apply(&deployment("web", "shop", FIRST, 2))?;
    playground.rolled_out("web")?;
    let rollout = |version: &&str| {
        let started = Instant::now();
        step(format!("rolling out {version}"), || {
            playground.run(&["set", "image", "deployment/web", &format!("app={version}")])?;
            playground.rolled_out("web")
        })?;
        Ok(started.elapsed())
    };
    VERSIONS.iter().map(rollout).collect()
}

/// The newest run as its objects tell it.
fn timeline(playground: &Playground<'_>) -> Result<String> {
    playground.ask(&[
        "get",
        "events",
        "--sort-by=.metadata.creationTimestamp",
        "--output=custom-columns=\
        TIME:.metadata.creationTimestamp,KIND:.involvedObject.kind,NAME:.involvedObject.name,REASON:.reason",
    ])
}
