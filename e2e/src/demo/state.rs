//! What the demo reads of the cluster, out of what `kubectl get` prints. Must not ask anything.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::Value;

use super::shop::text;

/// The Migrator, its Pods and whether the Deployments are done with their rollouts.
#[derive(Debug)]
pub(super) struct State {
    /// The conditions of the Migrator that say anything.
    pub(super) conditions: Vec<Condition>,
    /// The run under way.
    pub(super) running: Option<Running>,
    /// Runs that ended, newest first.
    pub(super) ended: Vec<Ended>,
    /// Images whose migrations are done.
    pub(super) done: Vec<String>,
    /// The Pods of web and worker.
    pub(super) pods: Vec<Pod>,
    /// Whether web and worker are what their Deployments say.
    pub(super) rolled_out: bool,
}

/// A condition of the Migrator.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

/// A migration under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: String,
    pub(super) attempt: i64,
}

/// A migration that ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) image: String,
    pub(super) job: String,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
    pub(super) result: String,
    pub(super) message: String,
}

impl Ended {
    /// Whether its migrations are done.
    pub(super) fn succeeded(&self) -> bool {
        self.result == "Succeeded"
    }
}

/// A Pod of web or worker.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) web: bool,
    pub(super) image: String,
    pub(super) leaving: bool,
    pub(super) stage: Stage,
}

/// How far a Pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its waiter runs.
    Waiting,
    /// It has yet to be scheduled, let go or started.
    Starting,
    /// It serves.
    Ready,
}

impl State {
    /// Reads a list of Migrators, Deployments and Pods.
    pub(super) fn read(objects: &Value) -> Result<Self> {
        let items: Vec<&Value> = objects["items"].as_array().context("no list of objects")?.iter().collect();
        let of = |kind: &'static str| items.iter().copied().filter(move |item| item["kind"] == kind);
        // Right after it was created there is no status.
        let status = of("Migrator").next().map_or(&Value::Null, |migrator| &migrator["status"]);
        let history = status["history"].as_array().map(Vec::as_slice).unwrap_or_default();
        let shop: Vec<_> = of("Deployment").filter(|item| ["web", "worker"].contains(&name(item))).collect();
        Ok(Self {
            conditions: status["conditions"].as_array().into_iter().flatten().map(condition).collect(),
            running: status.get("current").filter(|current| current.is_object()).map(running),
            ended: history.iter().map(ended).collect::<Result<_>>()?,
            done: status["done"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|done| text(&done["image"]).to_owned())
                .collect(),
            pods: of("Pod").filter_map(pod).collect(),
            rolled_out: shop.len() == 2 && shop.into_iter().all(rolled_out),
        })
    }

    /// How many Pods of an image are as far as this.
    pub(super) fn count(&self, image: &str, stage: Stage) -> usize {
        self.pods.iter().filter(|pod| pod.image == image && pod.stage == stage && !pod.leaving).count()
    }

    /// The web Pods of an image that serve.
    pub(super) fn serving(&self, image: &str) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(move |pod| pod.web && pod.image == image && pod.stage == Stage::Ready && !pod.leaving)
    }

    /// A Pod of this image that waits.
    pub(super) fn waiting_pod(&self, image: &str) -> Option<&str> {
        self.pods
            .iter()
            .find(|pod| pod.image == image && pod.stage == Stage::Waiting)
            .map(|pod| pod.name.as_str())
    }
}

fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

fn condition(condition: &Value) -> Condition {
    let field = |name: &str| text(&condition[name]).to_owned();
    Condition {
        kind: field("type"),
        status: field("status"),
        reason: field("reason"),
        message: field("message"),
    }
}

fn running(current: &Value) -> Running {
    Running {
        job: text(&current["job"]).to_owned(),
        attempt: current["attempt"].as_i64().unwrap_or_default(),
    }
}

fn ended(record: &Value) -> Result<Ended> {
    let field = |name: &str| text(&record[name]).to_owned();
    let time = |name: &str| -> Result<Timestamp> {
        field(name)
            .parse()
            .with_context(|| format!("`{name}` of a run in the Migrator's history isn't a time"))
    };
    Ok(Ended {
        image: field("image"),
        job: field("job"),
        started: time("started")?,
        finished: time("finished")?,
        result: field("result"),
        message: field("message"),
    })
}

fn pod(pod: &Value) -> Option<Pod> {
    let labels = &pod["metadata"]["labels"];
    if labels["app.kubernetes.io/name"] != "shop" {
        return None;
    }
    let containers = pod["spec"]["containers"].as_array()?;
    let app = containers.iter().find(|container| container["name"] == "app")?;
    let all = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let waits = |status: &Value| {
        text(&status["name"]).starts_with("migrate-wait-") && status["state"]["running"].is_object()
    };
    Some(Pod {
        name: name(pod).to_owned(),
        web: labels["app.kubernetes.io/component"] == "web",
        image: text(&app["image"]).to_owned(),
        leaving: pod["metadata"].get("deletionTimestamp").is_some(),
        stage: match () {
            () if all(&pod["status"]["conditions"]).iter().any(ready) => Stage::Ready,
            () if all(&pod["status"]["initContainerStatuses"]).iter().any(waits) => Stage::Waiting,
            () => Stage::Starting,
        },
    })
}

/// What `kubectl rollout status` looks at.
fn rolled_out(deployment: &Value) -> bool {
    let number = |path: &str| deployment.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    let wanted = number("/spec/replicas");
    let reached = |field: &str| number(&format!("/status/{field}")) == wanted;
    number("/status/observedGeneration") >= number("/metadata/generation")
        && ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].into_iter().all(reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn web(image: &str, waiter: &Value) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {"name": "web-1", "labels": {
                "app.kubernetes.io/name": "shop", "app.kubernetes.io/component": "web",
            }},
            "spec": {"containers": [{"name": "proxy", "image": "proxy"}, {"name": "app", "image": image}]},
            "status": {"initContainerStatuses": [{"name": "migrate-wait-shop", "state": waiter}]},
        })
    }

    #[test]
    fn a_pod_waits_while_its_waiter_runs() {
        let state = State::read(&json!({"items": [
            web("app:v2", &json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
            web("app:v1", &json!({"terminated": {"exitCode": 0}})),
        ]}));
        let state = state.unwrap();
        assert_eq!(state.waiting_pod("app:v2"), Some("web-1"));
        assert_eq!(state.count("app:v1", Stage::Waiting), 0);
        assert!(!state.rolled_out, "there are no Deployments");
    }

    #[test]
    fn a_rollout_is_over_when_no_old_pod_is_left() {
        let deployment = |replicas: i64| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {
                "observedGeneration": 2, "replicas": replicas, "updatedReplicas": 3, "readyReplicas": 3,
                "availableReplicas": 3,
            }})
        };
        assert!(rolled_out(&deployment(3)));
        assert!(!rolled_out(&deployment(4)));
    }

    #[test]
    fn a_run_in_history_has_its_times() {
        let record = json!({"image": "app:v2", "job": "shop-1", "result": "Failed", "message": "no",
            "started": "2026-01-01T00:00:00.000000Z", "finished": "2026-01-01T00:00:04.000000Z"});
        let ended = ended(&record).unwrap();
        assert_eq!((ended.finished.as_second() - ended.started.as_second(), ended.succeeded()), (4, false));
    }
}
