//! A Job as it is decoded off the wire: what decisions read, and nothing else, as with
//! [Pods](super::slim). The template of its Pods is skipped, and with it most code that decodes Jobs.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use migrations_core::snapshot::JobFacts;
use serde::{Deserialize, Deserializer};

use super::slim::ReadMetadata;

/// A Job to list and watch.
#[derive(Clone, Debug)]
pub struct SlimJob {
    /// Namespace, name, uid, resource version and labels, and nothing else.
    metadata: ObjectMeta,
    /// What decisions read of it.
    pub facts: JobFacts,
}

impl<'de> Deserialize<'de> for SlimJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { metadata, spec, status } = Read::deserialize(deserializer)?;
        // By way of a Job, so that there is one reading of Jobs.
        let spec = spec.map(|ReadSpec { suspend }| JobSpec { suspend, ..JobSpec::default() });
        let job = Job { metadata: metadata.into(), spec, status };
        let facts = JobFacts::from(&job);
        let ObjectMeta { namespace, name, uid, resource_version, labels, .. } = job.metadata;
        let metadata = ObjectMeta { namespace, name, uid, resource_version, labels, ..ObjectMeta::default() };
        Ok(Self { metadata, facts })
    }
}

impl Resource for SlimJob {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Job::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Job::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Job::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Job::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The fields that are read. A decision that reads more has to have it listed here; the test below
/// compares with a Job that was decoded whole.
#[derive(Deserialize)]
struct Read {
    metadata: ReadMetadata,
    spec: Option<ReadSpec>,
    status: Option<JobStatus>,
}

#[derive(Deserialize)]
struct ReadSpec {
    suspend: Option<bool>,
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

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
        assert_eq!(slim.facts.owner_uid.is_some() && slim.facts.outcome.is_some(), slim.facts.name == "run");
    }

    #[test]
    fn a_watch_can_go_on_from_it() {
        let slim: SlimJob = serde_json::from_value(rich()).unwrap();
        assert_eq!((slim.name_any(), slim.namespace()), ("run".to_owned(), Some("shop".to_owned())));
        assert_eq!((slim.uid(), slim.resource_version()), (Some("u1".to_owned()), Some("7".to_owned())));
        assert_eq!(slim.labels()[migrations_api::names::RUN_LABEL], "shop");
        assert_eq!(SlimJob::url_path(&(), Some("shop")), Job::url_path(&(), Some("shop")));
    }
}
