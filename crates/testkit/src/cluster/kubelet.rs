//! The scheduler's and the kubelet's part, played by a test step by step.

use k8s_openapi::api::core::v1::{Binding, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Request};
use serde_json::{Value, json};

use super::{NODE, TestNamespace, from_json};
use crate::builders::existing;

/// When everything here happens.
const NOW: &str = "2026-01-01T00:00:00Z";

impl TestNamespace {
    /// Binds a Pod to the node, as a scheduler does. From then on a deletion waits for
    /// [`Self::end_pod`].
    pub async fn bind_pod(&self, name: &str) {
        let binding = from_json::<Binding>(json!({
            "metadata": { "name": name },
            "target": { "kind": "Node", "name": NODE },
        }));
        let body = serde_json::to_vec(&binding).expect("JSON");
        let path = format!("/api/v1/namespaces/{}/pods", self.name());
        let request = Request::new(path).create_subresource("binding", name, &PostParams::default(), body);
        self.client().request_status::<Value>(request.expect("a request")).await.expect("the Pod is bound");
    }

    /// Binds a Pod whose init containers are at work.
    pub async fn initialize_pod(&self, name: &str) -> Pod {
        self.bind_pod(name).await;
        let pod = self.pod(name).await;
        self.set_pod_status(name, existing(&pod).initializing().json()["status"].take()).await
    }

    /// Binds a Pod, unless it is bound, and has it run and be ready, its init containers done.
    pub async fn start_pod(&self, name: &str) -> Pod {
        let pod = self.pod(name).await;
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
            self.bind_pod(name).await;
        }
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": NOW }));
        let running = existing(&pod)
            .running()
            .with(json!({ "status": { "conditions": conditions, "startTime": NOW } }));
        self.set_pod_status(name, running.json()["status"].take()).await
    }

    /// Has one container of a running Pod end. With the last one, the Pod is finished.
    pub async fn end_container(&self, pod: &str, container: &str, exit_code: i32, message: &str) -> Pod {
        let object = self.pod(pod).await;
        let mut statuses = existing(&object).json()["status"]["containerStatuses"].take();
        let list = statuses.as_array_mut().expect("the Pod was started");
        let ended = json!({ "terminated": {
            "exitCode": exit_code, "message": message, "startedAt": NOW, "finishedAt": NOW,
            "reason": if exit_code == 0 { "Completed" } else { "Error" },
        } });
        let status = list.iter_mut().find(|status| status["name"] == container).expect("such a container");
        status["state"] = ended;
        status["ready"] = json!(false);
        status["started"] = json!(false);

        let codes: Option<Vec<_>> = list
            .iter()
            .map(|status| status.pointer("/state/terminated/exitCode").and_then(Value::as_i64))
            .collect();
        let phase = match codes {
            None => "Running",
            Some(codes) if codes.iter().all(|code| *code == 0) => "Succeeded",
            Some(_) => "Failed",
        };
        let not_ready = ["Initialized", "PodScheduled"]
            .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": NOW }));
        let status = json!({ "phase": phase, "conditions": not_ready, "containerStatuses": statuses });
        self.set_pod_status(pod, status).await
    }

    /// Says that a Pod which is being deleted has ended; or loses it, if nobody asked for that.
    pub async fn end_pod(&self, name: &str) {
        let at_once = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(name, &at_once).await.expect("the Pod is there");
    }

    /// Merges `status` into a Pod's.
    pub async fn set_pod_status(&self, name: &str, status: Value) -> Pod {
        let patch = Patch::Merge(json!({ "status": status }));
        let pods: Api<Pod> = self.api();
        pods.patch_status(name, &PatchParams::default(), &patch).await.expect("the status is accepted")
    }

    async fn pod(&self, name: &str) -> Pod {
        self.api::<Pod>().get(name).await.expect("the Pod is there")
    }
}
