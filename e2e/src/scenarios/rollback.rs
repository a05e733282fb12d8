//! Old Pods serve while new ones wait; a rollback starts at once and runs nothing.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, deployment, started};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// v1, then v2 behind a migration of a few seconds, then v1 again.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "rollback")?;
    playground.gate("sleep 3")?;
    playground.apply(&deployment("web", "shop", V1, 2))?;
    playground.rolled_out("web")?;

    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.wait(&["migrator", "shop", &format!("--for=jsonpath={{.status.current.key}}={V2}")])?;
    let serving = playground.list("pods")?;
    let serving =
        serving.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == V1 && started(pod).is_some());
    ensure!(serving.count() >= 2, "fewer than 2 Pods of v1 serve while v2 is migrated");
    playground.rolled_out("web")?;

    playground.run(&["rollout", "undo", "deployment/web"])?;
    playground.rolled_out("web")?;
    playground.expect_runs(&[V1, V2])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}
