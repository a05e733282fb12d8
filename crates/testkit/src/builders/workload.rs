//! Workloads: what Pods are made from.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
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

/// A CronJob, whose time never comes.
pub fn cron_job(name: &str) -> Object<CronJob> {
    Object::new("batch/v1", "CronJob", name).with(json!({ "spec": { "schedule": "0 0 30 2 *" } }))
}

/// A `ReplicationController`.
pub fn replication_controller(name: &str) -> Object<ReplicationController> {
    Object::new("v1", "ReplicationController", name)
}

impl<K> Object<K> {
    /// Makes the labels, annotations and containers of `pod` its Pod template, and its labels the
    /// selector where its kind has one that people write.
    pub fn template(self, pod: &Object<Pod>) -> Self {
        let metadata = &pod.json["metadata"];
        let template = json!({
            "metadata": { "labels": metadata["labels"], "annotations": metadata["annotations"] },
            "spec": pod.json["spec"],
        });
        let labels = &metadata["labels"];
        let spec = match self.json["kind"].as_str() {
            Some("Job") => json!({ "template": template }),
            Some("CronJob") => json!({ "jobTemplate": { "spec": { "template": template } } }),
            Some("ReplicationController") => json!({ "template": template, "selector": labels }),
            _ => json!({ "template": template, "selector": { "matchLabels": labels } }),
        };
        self.with(json!({ "spec": spec }))
    }

    /// How many Pods it wants.
    pub fn replicas(self, count: i32) -> Self {
        self.with(json!({ "spec": { "replicas": count } }))
    }
}
