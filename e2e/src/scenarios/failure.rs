//! A migration that fails is seen where people look, and blocks only what depends on it.

use anyhow::{Result, ensure};

use super::Outcome;
use super::playground::{Playground, deployment};
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";
const V4: &str = "migrations-app:v4";
const LAST_WORDS: &str = "column orders.reference already exists";

/// v2 can't be migrated; v4 is the way out.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "failure")?;
    playground.gate(&format!(
        r#"case "$(cat shop/version.py)" in *v2*) echo '{LAST_WORDS}' >&2; exit 3 ;; esac"#
    ))?;
    playground.apply(&deployment("web", "shop", V1, 2))?;
    playground.rolled_out("web")?;

    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.wait(&["migrator", "shop", "--for=condition=Stalled"])?;
    seen(&playground.ask(&["describe", "migrator", "shop"])?, "kubectl describe migrator")?;
    playground.wait(&["event", "--field-selector=reason=MigrationFailed", "--for=create"])?;
    let events = playground.ask(&["get", "events", "--field-selector=reason=MigrationFailed"])?;
    seen(&events, "kubectl get events")?;
    ensure!(events.contains("deployment/web"), "no event is on the Deployment:\n{events}");
    waiter_says(&playground)?;

    // Pods of v1 depend on nothing that failed.
    playground.run(&["delete", "pods", "--selector", "app=shop", "--wait=false"])?;
    playground.wait(&["deployment", "web", "--for=jsonpath={.status.availableReplicas}=2"])?;

    playground.run(&["set", "image", "deployment/web", &format!("app={V4}")])?;
    playground.rolled_out("web")?;
    playground.settled()?;
    playground.expect_runs(&[V1, V2, V4])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// The log of the Pod that waits for v2: its waiter is told by push, so within moments.
fn waiter_says(playground: &Playground<'_>) -> Result<()> {
    let pods = playground.list("pods")?;
    let waits = pods.iter().find(|pod| {
        pod["spec"]["containers"][0]["image"] == V2 && pod["metadata"]["labels"]["app"] == "shop"
    });
    let name = waits.and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
    for _ in 0..50 {
        let log = playground.ask(&["logs", &name, "--container", "migrate-wait-shop"])?;
        if log.contains(LAST_WORDS) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    seen(&playground.ask(&["logs", &name, "--container", "migrate-wait-shop"])?, "the waiter's log")
}

fn seen(text: &str, place: &str) -> Result<()> {
    ensure!(text.contains(LAST_WORDS), "{place} doesn't show the last output of the run:\n{text}");
    Ok(())
}
