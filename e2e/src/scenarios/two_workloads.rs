//! Two workloads of different images under one Migrator: each image is migrated once, and neither ousts the other.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment};
use crate::environment::Environment;

const WEB: &str = "migrations-app:v1";
const WORKER: &str = "migrations-app:v2";

/// A first install of both, then a restart of both.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "two-workloads")?;
    playground.gate(UNTIL_LET_GO)?;
    playground.apply(&deployment("web", "shop", WEB, 2))?;
    playground.migrating()?;
    // Comes while the other is migrated, and waits its turn.
    playground.apply(&deployment("worker", "shop", WORKER, 2))?;
    for name in ["web", "worker"] {
        playground.let_go()?;
        playground.rolled_out(name)?;
    }
    playground.settled()?;
    playground.expect_runs(&[WEB, WORKER])?;

    playground.run(&["rollout", "restart", "deployment/web", "deployment/worker"])?;
    for name in ["web", "worker"] {
        playground.rolled_out(name)?;
    }
    playground.settled()?;
    playground.expect_runs(&[WEB, WORKER])?;
    let status = playground.status()?;
    ensure!(status["waiting"] == 0, "Pods still wait after both rollouts: {}", status["waiting"]);
    playground.remove()?;
    Ok(Outcome::Passed)
}
