//! A StatefulSet goes from one ready Pod to the next, so a Pod that waits in vain would stop it for good: the operator
//! takes that Pod out of the way.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, image, started, template};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";
const V3: &str = "migrations-app:v3";
const V4: &str = "migrations-app:v4";
/// The migration of v3 alone fails. The images have no grep.
const SCRIPT: &str = r#"case "$(cat shop/version.py)" in *v3*) exit 3 ;; esac"#;

/// v1 and v2 are rolled out, v3 can't be migrated, v4 can.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "stateful-set")?;
    playground.gate(SCRIPT)?;
    playground.apply(&stateful_set(V1))?;
    rolled_out(&playground, V1)?;
    roll_out(&playground, V2)?;
    rolled_out(&playground, V2)?;

    roll_out(&playground, V3)?;
    playground.wait(&["migrator", "shop", "--for=condition=Stalled"])?;
    let (new, old): (Vec<_>, Vec<_>) =
        playground.members()?.into_iter().partition(|pod| image(pod) == V3 && started(pod).is_none());
    ensure!(new.len() == 1, "{} Pods of v3 wait for their failed migration, not 1 of 3", new.len());
    ensure!(
        old.len() == 2 && old.iter().all(|pod| image(pod) == V2 && started(pod).is_some()),
        "not both of the other Pods serve from v2: {:?}",
        old.iter().map(|pod| (image(pod), started(pod))).collect::<Vec<_>>()
    );

    roll_out(&playground, V4)?;
    rolled_out(&playground, V4)?;
    playground.wait(&["event", "--field-selector=reason=Superseded", "--for=create"])?;
    let event = playground.ask(&["get", "events", "--field-selector=reason=Superseded"])?;
    ensure!(event.contains("deleted Pod web-2"), "no event tells that the Pod of v3 was deleted:\n{event}");
    playground.expect_runs(&[V1, V2, V3, V4])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn roll_out(playground: &Playground<'_>, image: &str) -> Result<()> {
    playground.run(&["set", "image", "statefulset/web", &format!("app={image}")])
}

fn rolled_out(playground: &Playground<'_>, wanted: &str) -> Result<()> {
    playground.rollout_over("statefulset", "web")?;
    playground.settled()?;
    let pods = playground.members()?;
    let images: Vec<_> = pods.iter().map(image).collect();
    ensure!(images == [wanted; 3], "the rollout of {wanted} ended with these Pods: {images:?}");
    Ok(())
}

/// Three Pods, one after another.
fn stateful_set(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3, "serviceName": "web", "podManagementPolicy": "OrderedReady",
            "selector": { "matchLabels": { "app": "shop", "component": "web" } },
            "template": template("web", "shop", image),
        },
    })
}
