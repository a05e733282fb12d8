//! The controller may end at any moment: a run under way is neither lost nor repeated.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, deployment};
use crate::command;
use crate::environment::Environment;

const IMAGE: &str = "migrations-app:v1";

/// All the controller's Pods are killed while the migration runs: the leader gives nothing back.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "restart")?;
    playground.gate("sleep 8")?;
    playground.apply(&deployment("web", "shop", IMAGE, 2))?;
    playground.wait(&["pods", "--selector", "migrations=shop", "--for=create"])?;
    playground.wait(&["pods", "--selector", "migrations=shop", "--for=jsonpath={.status.phase}=Running"])?;

    let mut kill = environment.cluster().kubectl();
    command::run(kill.args([
        "--namespace",
        "migrations-operator",
        "delete",
        "pods",
        "--selector",
        "app.kubernetes.io/name=migrations-controller",
        "--grace-period=0",
        "--force",
    ]))?;
    playground.rolled_out("web")?;
    playground.settled()?;
    playground.expect_runs(&[IMAGE])?;
    let pods = playground.list("pods")?;
    let runs = pods.iter().filter(|pod| pod["metadata"]["labels"]["migrations"] == "shop").count();
    ensure!(runs == 1, "{runs} Pods ran the migration");
    playground.remove()?;
    Ok(Outcome::Passed)
}
