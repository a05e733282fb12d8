//! Pods of a CronJob wait as others do, and an image is migrated once for all its Jobs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, ran, template};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";

/// Two Jobs of v1, then one of v2.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "cron-job")?;
    playground.gate("sleep 3")?;
    playground.apply(&cron_job(V1))?;
    complete(&playground, "first")?;
    playground.expect_runs(&[V1])?;
    starts_after_the_migration(&playground, "first")?;

    complete(&playground, "second")?;
    playground.expect_runs(&[V1])?;

    playground.run(&["set", "image", "cronjob/report", &format!("app={V2}")])?;
    complete(&playground, "third")?;
    playground.expect_runs(&[V1, V2])?;
    starts_after_the_migration(&playground, "third")?;
    playground.settled()?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// A Job of the CronJob, whose schedule nobody waits for.
fn complete(playground: &Playground<'_>, job: &str) -> Result<()> {
    playground.run(&["create", "job", job, "--from=cronjob/report"])?;
    playground.wait(&["job", job, "--for=condition=Complete"])
}

fn starts_after_the_migration(playground: &Playground<'_>, job: &str) -> Result<()> {
    let history = playground.history()?;
    let finished = history[0]["finished"].as_str().context("the run has no end")?;
    let pods = playground.members()?;
    let pod = pods.iter().find(|pod| pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job);
    let (started, _) = pod.and_then(ran).with_context(|| format!("no Pod of Job {job} has ended"))?;
    // Whole seconds against microseconds: a start in the same second counts as after.
    ensure!(
        started.get(..19) >= finished.get(..19),
        "the Pod of Job {job} started at {started}, its migration ended at {finished}"
    );
    Ok(())
}

/// Its Pods end at once. It is due once a year, and not even then.
fn cron_job(image: &str) -> Value {
    let mut template = template("report", "shop", image);
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["containers"][0]["command"] = json!(["true"]);
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "report" },
        "spec": {
            "schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": { "spec": { "backoffLimit": 0, "template": template } },
        },
    })
}
