//! A running migration is left alone when a newer image is rolled out, which is migrated after it.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, deployment};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// v2 comes while v1 is migrated.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "newer-image")?;
    playground.gate("sleep 6")?;
    playground.apply(&deployment("web", "shop", V1, 2))?;
    playground.migrating()?;

    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.rolled_out("web")?;
    playground.settled()?;
    playground.expect_runs(&[V1, V2])?;
    let history = playground.status()?["history"].take();
    for run in history.as_array().into_iter().flatten() {
        ensure!(run["result"] == "Succeeded", "a run did not end by itself: {run}");
    }
    playground.remove()?;
    Ok(Outcome::Passed)
}
