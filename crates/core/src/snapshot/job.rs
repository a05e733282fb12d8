//! What decisions read of Jobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use migrations_api::names;

use super::controller_of;
use crate::plan::Effect;

/// What decisions read of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version: the precondition of a change.
    pub resource_version: String,
    /// Uid of its controlling owner.
    pub owner_uid: Option<String>,
    /// The run label, which says whose run it is.
    pub run_of: Option<String>,
    /// The key annotation.
    pub key: Option<String>,
    /// The attempt annotation.
    pub attempt: Option<String>,
    /// The hash annotation.
    pub run_hash: Option<String>,
    /// Not started yet, or stopped.
    pub suspended: bool,
    /// Being deleted.
    pub terminating: bool,
    /// How it ended, if it did.
    pub outcome: Option<JobOutcome>,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// How a Job ended, in the words of its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Condition `Complete`.
    Complete,
    /// Condition `Failed`, with its message.
    Failed(String),
}

impl JobFacts {
    /// Its deletion. One that waits for its start must be as it was read: started since, by whomever, it
    /// is a running migration (contract §5, S4).
    pub(crate) fn deletion(&self) -> Effect {
        Effect::DeleteJob {
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.suspended.then(|| self.resource_version.clone()),
        }
    }
}

impl From<&Job> for JobFacts {
    fn from(job: &Job) -> Self {
        let meta = &job.metadata;
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref());
        let ended = conditions.unwrap_or_default().iter().find_map(|condition| {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => Some(JobOutcome::Complete),
                ("Failed", "True") => Some(JobOutcome::Failed(condition.message.clone().unwrap_or_default())),
                _ => None,
            }
        });
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owner_uid: controller_of(meta.owner_references.as_deref()).and_then(|owner| owner.uid),
            run_of: meta.labels.as_ref().and_then(|all| all.get(names::RUN_LABEL)).cloned(),
            key: annotation(names::KEY_ANNOTATION),
            attempt: annotation(names::ATTEMPT_ANNOTATION),
            run_hash: annotation(names::RUN_HASH_ANNOTATION),
            suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
            terminating: meta.deletion_timestamp.is_some(),
            outcome: ended,
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
        }
    }
}
