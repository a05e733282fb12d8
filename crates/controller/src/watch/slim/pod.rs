//! What is read of a Pod.

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaimVolumeSource, Pod, PodSpec, PodStatus, Volume,
};
use migrations_core::snapshot::PodFacts;
use serde::Deserialize;

use super::{ReadMetadata, Skimmed};

impl Skimmed for Pod {
    type Read = Read;
    type Facts = PodFacts;
}

#[derive(Deserialize)]
pub struct Read {
    metadata: ReadMetadata,
    spec: Option<ReadSpec>,
    status: Option<PodStatus>,
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
#[serde(rename_all = "camelCase")]
struct ReadContainer {
    name: String,
    image: Option<String>,
    args: Option<Vec<String>>,
    restart_policy: Option<String>,
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
    fn from(ReadContainer { name, image, args, restart_policy }: ReadContainer) -> Self {
        Self { name, image, args, restart_policy, ..Self::default() }
    }
}

impl From<ReadVolume> for Volume {
    fn from(ReadVolume { name, persistent_volume_claim }: ReadVolume) -> Self {
        Self { name, persistent_volume_claim, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use kube::{Resource, ResourceExt};
    use migrations_testkit::builders::{job, pod};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::watch::slim::SlimPod;

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
            .init_container_with("db-proxy", "proxy:v1", json!({ "restartPolicy": "Always" }))
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
