//! What is read of a Job. The template of its Pods is skipped, and with it most code that decodes Jobs.

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use migrations_core::snapshot::JobFacts;
use serde::Deserialize;

use super::{ReadMetadata, Skimmed};

impl Skimmed for Job {
    type Read = Read;
    type Facts = JobFacts;
}

#[derive(Deserialize)]
pub struct Read {
    metadata: ReadMetadata,
    spec: Option<ReadSpec>,
    status: Option<JobStatus>,
}

#[derive(Deserialize)]
struct ReadSpec {
    suspend: Option<bool>,
}

impl From<Read> for Job {
    fn from(Read { metadata, spec, status }: Read) -> Self {
        let spec = spec.map(|ReadSpec { suspend }| JobSpec { suspend, ..JobSpec::default() });
        Self { metadata: metadata.into(), spec, status }
    }
}

#[cfg(test)]
mod tests {
    use kube::{Resource, ResourceExt};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::watch::slim::SlimJob;

    fn rich() -> Value {
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "namespace": "shop", "name": "run", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:01:00Z",
                "labels": { migrations_api::names::RUN_LABEL: "shop" },
                "annotations": {
                    migrations_api::names::KEY_ANNOTATION: "key",
                    migrations_api::names::ATTEMPT_ANNOTATION: "2",
                    migrations_api::names::RUN_HASH_ANNOTATION: "5f6",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Migrator", "name": "shop", "uid": "m1", "controller": true,
                }],
                "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:status": {} } }],
            },
            "spec": {
                "suspend": true,
                "template": { "spec": { "containers": [{ "name": "app", "image": "shop:v1" }] } },
            },
            "status": { "conditions": [{ "type": "Failed", "status": "True", "message": "no such table" }] },
        })
    }

    /// Whoever lets a decision read more of a Job adds it to `rich`, and sees this red until it is
    /// decoded as well.
    #[rstest]
    #[case::rich(rich())]
    #[case::bare(json!({ "metadata": { "name": "bare" }, "spec": { "template": {} } }))]
    fn decisions_read_the_same_of_it_as_of_the_whole_job(#[case] job: Value) {
        let slim: SlimJob = serde_json::from_value(job.clone()).unwrap();
        assert_eq!(slim.facts, JobFacts::from(&serde_json::from_value::<Job>(job).unwrap()));
        assert_eq!(slim.facts.suspended && slim.facts.terminating, slim.facts.name == "run");
        assert_eq!(slim.facts.run_of.is_some(), slim.facts.name == "run");
        assert_eq!(slim.facts.owner_uid.is_some() && slim.facts.outcome.is_some(), slim.facts.name == "run");
    }

    #[test]
    fn a_watch_can_go_on_from_it() {
        let slim: SlimJob = serde_json::from_value(rich()).unwrap();
        assert_eq!((slim.name_any(), slim.namespace()), ("run".to_owned(), Some("shop".to_owned())));
        assert_eq!((slim.uid(), slim.resource_version()), (Some("u1".to_owned()), Some("7".to_owned())));
        assert_eq!(SlimJob::url_path(&(), Some("shop")), Job::url_path(&(), Some("shop")));
    }
}
