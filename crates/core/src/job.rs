//! The Job of a run (contract §4 and §5): what it is called, what identifies it, and what it looks
//! like. Raw JSON in and out, so that fields this build doesn't know survive.

mod claims;
mod clean;
mod containers;
mod placement;
mod references;
mod volumes;

use migrations_api::names;
use serde_json::{Map, Value, json};

use crate::snapshot::{JobFacts, Snapshot};
use crate::validate::{Refusal, Valid};

pub use claims::claims_named_by;

/// What makes a run this run and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunIdentity {
    /// What is migrated.
    pub key: String,
    /// Which attempt at it, from 1.
    pub attempt: i32,
    /// Hash of the run's spec and template.
    pub run_hash: String,
}

impl RunIdentity {
    /// The Job's name: the same whoever computes it, another for every run.
    pub fn job_name(&self, migrator: &str, migrator_uid: &str) -> String {
        let Self { key, attempt, run_hash } = self;
        let hash = names::short_hash(format!("{migrator_uid}\n{key}\n{run_hash}").as_bytes());
        // Pod names add a dash and five characters, and are cut by the Job controller itself.
        names::shortened("", migrator, &format!("-{hash}-{attempt}"))
    }

    /// Whether a Job of that name is this run's: all has to agree (contract §5).
    pub fn agrees(&self, job: &JobFacts, migrator_uid: &str) -> bool {
        job.owner_uid.as_deref() == Some(migrator_uid)
            && job.key.as_deref() == Some(self.key.as_str())
            && job.attempt.as_deref() == Some(self.attempt.to_string().as_str())
            && job.run_hash.as_deref() == Some(self.run_hash.as_str())
    }
}

/// Hash of all that a run's outcome depends on: the spec's part of it, what of the Pod template
/// reaches the run (so neither where its Pod was placed, nor what is told of it), and the `request`
/// for it.
pub fn run_hash(valid: &Valid, template: &Value, request: Option<&str>) -> String {
    let container = valid.container.as_deref().unwrap_or_default();
    let request = request.unwrap_or_default();
    let spec = match clean::pod_spec(valid, template, "", false) {
        Ok(cleaned) => Value::Object(cleaned.spec),
        // No run is made of it.
        Err(_) => Value::Null,
    };
    names::short_hash(format!("{}\n{container}\n{request}\n{spec}", valid.run.fingerprint()).as_bytes())
}

/// The image that a run of this template would have.
pub fn run_image(valid: &Valid, template: &Value) -> Option<String> {
    if let Some(image) = &valid.run.image {
        return Some(image.clone());
    }
    let containers = template.pointer("/spec/containers")?.as_array()?;
    let index = containers::key_container_index(containers, valid.container.as_deref())?;
    containers.get(index)?.get("image")?.as_str().map(str::to_owned)
}

/// A run's Job, and what has to be told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The Job, suspended.
    pub job: Value,
    /// Claims of a StatefulSet in whose place the run has an empty directory (a raw device: nothing),
    /// by the names that the StatefulSet has for them.
    pub emptied_claims: Vec<String>,
}

/// The Job of a run cloned from `template`, or why none can be made of it: a container that isn't
/// there, or a claim that can't be shared.
pub fn render(
    valid: &Valid,
    snapshot: &Snapshot,
    template: &Value,
    run: &RunIdentity,
) -> Result<Rendered, Refusal> {
    let clean::Cleaned { mut spec, emptied_claims } =
        clean::pod_spec(valid, template, &snapshot.namespace, snapshot.policy.hide_output)?;
    if let Some(node) = claims::node(&spec, snapshot)? {
        placement::pin(&mut spec, &node);
    }
    let mut labels: Map<String, Value> =
        valid.run.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    labels.insert(names::RUN_LABEL.to_owned(), json!(names::label_value(&snapshot.name)));
    let mut annotations: Map<String, Value> =
        valid.run.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    annotations.insert(names::NO_WAIT_ANNOTATION.to_owned(), json!("true"));
    // An autoscaler that moves a Pod would end a migration midway.
    annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), json!("false"));
    annotations.insert("karpenter.sh/do-not-disrupt".to_owned(), json!("true"));
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": run.job_name(&snapshot.name, &snapshot.uid),
            "namespace": snapshot.namespace,
            "labels": labels,
            "annotations": {
                names::KEY_ANNOTATION: run.key,
                names::ATTEMPT_ANNOTATION: run.attempt.to_string(),
                names::RUN_HASH_ANNOTATION: run.run_hash,
            },
            "ownerReferences": [{
                "apiVersion": format!("{}/v1beta1", names::GROUP),
                "kind": "Migrator",
                "name": snapshot.name,
                "uid": snapshot.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "suspend": true,
            "parallelism": 1,
            "completions": 1,
            // Attempts are counted by the operator; a Job of one Pod has one result.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": { "metadata": { "labels": labels, "annotations": annotations }, "spec": spec },
        },
    });
    Ok(Rendered { job, emptied_claims })
}
