//! Pods, and what a kubelet says of them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Object;

/// When the containers of these Pods start, unless a test says otherwise.
const STARTED: &str = "2026-01-01T00:00:00Z";

/// A Pod, not yet seen by a scheduler.
pub fn pod(name: &str) -> Object<Pod> {
    Object::new("v1", "Pod", name).with(json!({ "status": { "phase": "Pending" } }))
}

impl Object<Pod> {
    /// Adds a container.
    pub fn container(self, name: &str, image: &str) -> Self {
        self.container_with(name, image, json!({}))
    }

    /// Adds a container with more fields than name and image.
    pub fn container_with(self, name: &str, image: &str, more: Value) -> Self {
        self.push(&["spec", "containers"], container(name, image, more))
    }

    /// Adds an init container.
    pub fn init_container(self, name: &str, image: &str) -> Self {
        self.init_container_with(name, image, json!({}))
    }

    /// Adds an init container with more fields than name and image.
    pub fn init_container_with(self, name: &str, image: &str, more: Value) -> Self {
        self.push(&["spec", "initContainers"], container(name, image, more))
    }

    /// Puts it on a node.
    pub fn on_node(self, node: &str) -> Self {
        self.with(json!({ "spec": { "nodeName": node } }))
    }

    /// Its init containers are at work or waiting, and nothing else has started.
    pub fn initializing(self) -> Self {
        let running = json!({ "running": { "startedAt": STARTED } });
        let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
        self.phase("Pending").statuses("initContainers", &running).statuses("containers", &waiting)
    }

    /// All its containers run.
    pub fn running(self) -> Self {
        let ended = json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": STARTED } });
        let running = json!({ "running": { "startedAt": STARTED } });
        self.phase("Running").statuses("initContainers", &ended).statuses("containers", &running)
    }

    /// All its containers ended with `exit_code`, having said `message` last.
    pub fn finished(self, exit_code: i32, message: &str) -> Self {
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        let ended = json!({ "terminated": {
            "exitCode": exit_code, "reason": reason, "message": message,
            "startedAt": STARTED, "finishedAt": STARTED,
        } });
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        self.phase(phase).statuses("containers", &ended)
    }

    /// Its containers cannot start, for `reason`, such as `ImagePullBackOff`.
    pub fn stuck(self, reason: &str, message: &str) -> Self {
        let waiting = json!({ "waiting": { "reason": reason, "message": message } });
        self.phase("Pending").statuses("containers", &waiting)
    }

    /// Sets its phase.
    pub fn phase(self, phase: &str) -> Self {
        self.with(json!({ "status": { "phase": phase } }))
    }

    /// Gives all `containers` of the spec the same state.
    fn statuses(self, containers: &str, state: &Value) -> Self {
        let field = match containers {
            "initContainers" => "initContainerStatuses",
            _ => "containerStatuses",
        };
        let statuses: Vec<_> = self.json["spec"][containers]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| {
                let running = state.get("running").is_some();
                json!({
                    "name": container["name"], "image": container["image"], "imageID": "",
                    "ready": running, "started": running, "restartCount": 0, "state": state,
                })
            })
            .collect();
        self.with(json!({ "status": { field: statuses } }))
    }
}

fn container(name: &str, image: &str, more: Value) -> Value {
    let mut container = json!({ "name": name, "image": image });
    super::merge(&mut container, more);
    container
}
