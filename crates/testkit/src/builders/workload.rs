//! Workloads: what Pods are made from.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::Object;

/// A Deployment.
pub fn deployment(name: &str) -> Object<Deployment> {
    Object::new("apps/v1", "Deployment", name)
}

/// A ReplicaSet.
pub fn replica_set(name: &str) -> Object<ReplicaSet> {
    Object::new("apps/v1", "ReplicaSet", name)
}

/// A StatefulSet.
pub fn stateful_set(name: &str) -> Object<StatefulSet> {
    Object::new("apps/v1", "StatefulSet", name).with(json!({ "spec": { "serviceName": name } }))
}

/// A DaemonSet.
pub fn daemon_set(name: &str) -> Object<DaemonSet> {
    Object::new("apps/v1", "DaemonSet", name)
}

/// A Job.
pub fn job(name: &str) -> Object<Job> {
    Object::new("batch/v1", "Job", name)
}

impl<K> Object<K> {
    /// Makes the labels, annotations and containers of `pod` its Pod template, and its labels the
    /// selector of all kinds but a Job, whose selector the API server makes.
    pub fn template(self, pod: &Object<Pod>) -> Self {
        let metadata = &pod.json["metadata"];
        let mut spec = json!({ "template": {
            "metadata": { "labels": metadata["labels"], "annotations": metadata["annotations"] },
            "spec": pod.json["spec"],
        } });
        if self.json["kind"] != "Job" {
            spec["selector"] = json!({ "matchLabels": metadata["labels"] });
        }
        self.with(json!({ "spec": spec }))
    }

    /// How many Pods it wants.
    pub fn replicas(self, count: i32) -> Self {
        self.with(json!({ "spec": { "replicas": count } }))
    }
}
