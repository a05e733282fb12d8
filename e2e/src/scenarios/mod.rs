//! The scenarios: one file a promise, each a function that gets a running environment and leaves it as it was.

mod failure;
mod first_install;
mod hermetic;
mod outage;
pub(crate) mod playground;
mod restart;
mod rollback;

use anyhow::Result;
use futures::future::BoxFuture;

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
    pub(crate) run: for<'a> fn(&'a Environment) -> BoxFuture<'a, Result<Outcome>>,
}

/// All scenarios, in the order they run.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "hermetic", run: |environment| Box::pin(hermetic::run(environment)) },
        Scenario { name: "first-install", run: |environment| Box::pin(first_install::run(environment)) },
        Scenario { name: "rollback", run: |environment| Box::pin(rollback::run(environment)) },
        Scenario { name: "failure", run: |environment| Box::pin(failure::run(environment)) },
        Scenario { name: "restart", run: |environment| Box::pin(restart::run(environment)) },
        Scenario { name: "outage", run: |environment| Box::pin(outage::run(environment)) },
        Scenario { name: "demo", run: |environment| Box::pin(demo(environment)) },
    ]
}

/// The README's story, whole.
#[allow(clippy::unused_async, reason = "every scenario has this shape")]
async fn demo(environment: &Environment) -> Result<Outcome> {
    crate::demo::run(environment, false).map(|()| Outcome::Passed)
}
