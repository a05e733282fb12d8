//! The scenarios: one file a promise, each a function that gets a running environment and leaves it as it was.

mod api_server_outage;
mod attempts;
mod cron_job;
mod failure;
mod first_install;
mod hermetic;
mod injected_sidecar;
mod lock;
mod mesh;
mod newer_image;
mod outage;
pub(crate) mod playground;
mod requests;
mod restart;
mod rollback;
mod sandbox;
mod shapes;
mod stateful_set;
mod two_workloads;
mod uninstall;
mod webhook_rollout;

use anyhow::Result;

use crate::environment::Environment;

/// How a scenario ended that did not fail.
pub(crate) enum Outcome {
    /// The promise was seen to hold.
    Passed,
    /// It could not be tried here, and why. Never counted as passed.
    Skipped(String),
}

/// A promise and how it is tried.
pub(crate) struct Scenario {
    /// What `cargo e2e test NAME` looks for.
    pub(crate) name: &'static str,
    /// Tries it.
    pub(crate) run: fn(&Environment) -> Result<Outcome>,
}

/// All scenarios, in the order they run.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "hermetic", run: hermetic::run },
        Scenario { name: "first-install", run: first_install::run },
        Scenario { name: "rollback", run: rollback::run },
        Scenario { name: "newer-image", run: newer_image::run },
        Scenario { name: "failure", run: failure::run },
        Scenario { name: "attempts", run: attempts::run },
        Scenario { name: "two-workloads", run: two_workloads::run },
        Scenario { name: "stateful-set", run: stateful_set::run },
        Scenario { name: "cron-job", run: cron_job::run },
        Scenario { name: "requests", run: requests::run },
        Scenario { name: "lock", run: lock::run },
        Scenario { name: "injected-sidecar", run: injected_sidecar::run },
        Scenario { name: "restart", run: restart::run },
        Scenario { name: "shapes", run: shapes::run },
        Scenario { name: "mesh", run: mesh::run },
        Scenario { name: "outage", run: outage::run },
        Scenario { name: "sandbox", run: sandbox::run },
        Scenario { name: "webhook-rollout", run: webhook_rollout::run },
        Scenario { name: "api-server-outage", run: api_server_outage::run },
        Scenario { name: "uninstall", run: uninstall::run },
        Scenario { name: "demo", run: demo },
    ]
}

/// The README's story, whole.
fn demo(environment: &Environment) -> Result<Outcome> {
    crate::demo::run(environment, false).map(|()| Outcome::Passed)
}
