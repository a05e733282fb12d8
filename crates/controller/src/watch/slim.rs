//! A Pod as it is decoded off the wire: what decisions read, and nothing else. Most of a Pod
//! (managed fields, environment, probes, volumes) is skipped without ever being held.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodStatus, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use migrations_core::snapshot::PodFacts;
use serde::{Deserialize, Deserializer};

/// A Pod to list and watch.
#[derive(Clone, Debug)]
pub struct SlimPod {
    /// Namespace, name, uid and resource version, and nothing else.
    metadata: ObjectMeta,
    /// What decisions read of it.
    pub facts: PodFacts,
}

impl<'de> Deserialize<'de> for SlimPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pod = Pod::from(Read::deserialize(deserializer)?);
        // By way of a Pod, so that there is one reading of Pods.
        let facts = PodFacts::from(&pod);
        let ObjectMeta { namespace, name, uid, resource_version, .. } = pod.metadata;
        let metadata = ObjectMeta { namespace, name, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, facts })
    }
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The fields that are read. A decision that reads more has to have it listed here; the test below
/// compares with a Pod that was decoded whole.
#[derive(Deserialize)]
struct Read {
    metadata: ReadMetadata,
    spec: Option<ReadSpec>,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadMetadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadSpec {
    containers: Option<Vec<ReadContainer>>,
    init_containers: Option<Vec<ReadContainer>>,
    node_name: Option<String>,
    active_deadline_seconds: Option<i64>,
    volumes: Option<Vec<ReadVolume>>,
}

#[derive(Deserialize)]
struct ReadContainer {
    name: String,
    image: Option<String>,
    args: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadVolume {
    name: String,
    persistent_volume_claim: Option<PersistentVolumeClaimVolumeSource>,
}

impl From<Read> for Pod {
    fn from(read: Read) -> Self {
        let Read { metadata, spec, status } = read;
        Self { metadata: metadata.into(), spec: spec.map(PodSpec::from), status }
    }
}

impl From<ReadMetadata> for ObjectMeta {
    fn from(read: ReadMetadata) -> Self {
        Self {
            namespace: read.namespace,
            name: read.name,
            uid: read.uid,
            resource_version: read.resource_version,
            labels: read.labels,
            annotations: read.annotations,
            owner_references: read.owner_references,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            deletion_grace_period_seconds: read.deletion_grace_period_seconds,
            ..Self::default()
        }
    }
}

impl From<ReadSpec> for PodSpec {
    fn from(read: ReadSpec) -> Self {
        let containers = |all: Vec<ReadContainer>| all.into_iter().map(Container::from).collect();
        Self {
            containers: read.containers.map(containers).unwrap_or_default(),
            init_containers: read.init_containers.map(containers),
            node_name: read.node_name,
            active_deadline_seconds: read.active_deadline_seconds,
            volumes: read.volumes.map(|all| all.into_iter().map(Volume::from).collect()),
            ..Self::default()
        }
    }
}

impl From<ReadContainer> for Container {
    fn from(ReadContainer { name, image, args }: ReadContainer) -> Self {
        Self { name, image, args, ..Self::default() }
    }
}

impl From<ReadVolume> for Volume {
    fn from(ReadVolume { name, persistent_volume_claim }: ReadVolume) -> Self {
        Self { name, persistent_volume_claim, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use migrations_testkit::builders::{job, pod};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn rich() -> migrations_testkit::builders::Object<Pod> {
        pod("web")
            .label("app", "web")
            .annotation(migrations_api::names::NO_WAIT_ANNOTATION, "true")
            .with(migrations_core::released::mark("pod-web"))
            .created("2026-01-01T00:00:00Z")
            .resource_version("7")
            .owned_by(&job("owner"))
            .on_node("node-1")
            .init_container_with("migrate-wait-shop", "waiter", json!({ "args": [
                "--namespace=shop", "--migrator=shop", "--container=app=shop:v1", "--revision=u1/5f6",
                "--server=webhook:9444", "--server-name=webhook", "--files=/",
            ] }))
            .container_with("app", "shop:v1", json!({ "env": [{ "name": "A", "value": "b" }] }))
            .container("proxy", "proxy:v1")
            .with(json!({
                "metadata": { "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }] },
                "spec": {
                    "activeDeadlineSeconds": 60,
                    "volumes": [
                        { "name": "data", "persistentVolumeClaim": { "claimName": "data-web-0" } },
                        { "name": "empty", "emptyDir": {} },
                    ],
                },
                "status": { "conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node",
                }] },
            }))
    }

    /// Whoever lets a decision read more of a Pod adds it to `rich`, and sees this red until it is
    /// decoded as well.
    #[rstest]
    #[case::new(rich())]
    #[case::initializing(rich().initializing())]
    #[case::running(rich().running())]
    #[case::failed(rich().finished(1, "no such table"))]
    #[case::stuck(rich().stuck("ImagePullBackOff", "not found"))]
    #[case::terminating(rich().running().terminating_since("2026-01-01T00:01:00Z"))]
    #[case::bare(pod("bare"))]
    fn decisions_read_the_same_of_it_as_of_the_whole_pod(
        #[case] pod: migrations_testkit::builders::Object<Pod>,
    ) {
        let slim: SlimPod = serde_json::from_value(pod.json()).unwrap();
        assert_eq!(slim.facts, PodFacts::from(&pod.build()));
        assert_eq!(slim.facts.admitted.is_some(), slim.facts.name == "web");
        assert_eq!(slim.facts.released, slim.facts.name == "web");
    }

    #[test]
    fn a_watch_can_go_on_from_it() {
        let slim: SlimPod = serde_json::from_value(rich().json()).unwrap();
        assert_eq!((slim.name_any(), slim.namespace()), ("web".to_owned(), Some("shop".to_owned())));
        assert_eq!((slim.uid(), slim.resource_version()), (Some("pod-web".to_owned()), Some("7".to_owned())));
        assert_eq!(SlimPod::url_path(&(), Some("shop")), Pod::url_path(&(), Some("shop")));
    }

    #[rstest]
    #[case::nothing(json!({ "metadata": {} }))]
    #[case::nulls(json!({
        "metadata": { "creationTimestamp": null, "labels": null },
        "spec": { "containers": null, "volumes": null }, "status": { "containerStatuses": null },
    }))]
    fn what_is_absent_is_no_fault(#[case] pod: Value) {
        serde_json::from_value::<SlimPod>(pod).unwrap();
    }
}
