//! The climb from a Pod to its workload, for workloads of every kind (contract §3).

#![allow(clippy::panic, clippy::expect_used, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use std::collections::BTreeMap;

use migrations_api::MigratorSpec;
use migrations_core::snapshot::{OwnerRef, Owners, PodFacts};
use migrations_core::survey::{survey, wanted};
use migrations_core::validate::validate;
use migrations_core::workload::Revision;
use migrations_core::workload::Revision::{Current, Older, Unknown};
use rstest::rstest;
use serde_json::{Value, json};
use world::{World, owner};

/// Surveys one Pod, reading what is asked for from `cluster`; what isn't there can't be read. Kind of
/// the workload, key and revision.
fn climbed(pod: &PodFacts, cluster: &Owners) -> Option<(String, String, Revision)> {
    climbed_by(&World::new().spec, pod, cluster)
}

fn climbed_by(spec: &MigratorSpec, pod: &PodFacts, cluster: &Owners) -> Option<(String, String, Revision)> {
    let valid = validate(spec).expect("a spec that can be followed");
    let mut snapshot = World::new().snapshot();
    snapshot.pods.push(pod.clone());
    for _ in 0..20 {
        let wanted = wanted(&valid, &snapshot);
        if wanted.is_empty() {
            let survey = survey(&valid, &snapshot.pods, &snapshot.owners);
            let member = survey.members.first().filter(|member| member.origin.template.is_some())?;
            let origin = &member.origin;
            return Some((origin.reference.kind.clone(), origin.key.clone(), origin.revision));
        }
        for reference in wanted {
            let found = cluster.get(&reference).cloned().flatten();
            snapshot.owners.insert(reference, found);
        }
    }
    panic!("never reaches the top");
}

fn pod_of(reference: Option<OwnerRef>, image: &str, labels: &[(&str, &str)]) -> PodFacts {
    let mut pod = World::new().pod("any", image).clone();
    pod.name = "pod".to_owned();
    pod.owner = reference;
    pod.admitted = None;
    pod.labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    pod
}

fn itself(pod: &PodFacts) -> OwnerRef {
    OwnerRef { uid: Some(pod.uid.clone()), ..owner("v1", "Pod", "pod") }
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "shop" } }, "spec": { "containers": [{ "name": "app", "image": image }] } })
}

fn owned_by(reference: &OwnerRef, template: &Value) -> Value {
    json!({
        "metadata": { "ownerReferences": [{
            "apiVersion": reference.api_version, "kind": reference.kind, "name": reference.name,
            "uid": reference.uid, "controller": true,
        }]},
        "spec": { "template": template },
    })
}

/// A chain of two: `bottom` with one template, `top` with another.
fn chain(bottom: &OwnerRef, bottom_template: &Value, top: &OwnerRef, top_object: Value) -> Owners {
    BTreeMap::from([(bottom.clone(), Some(owned_by(top, bottom_template))), (top.clone(), Some(top_object))])
}

fn with_template(template: &Value) -> Value {
    json!({ "metadata": {}, "spec": { "template": template } })
}

#[rstest]
#[case::newest_replica_set("v2", "v2", Current, "v2")]
#[case::older_replica_set_keeps_its_own_image("v1", "v2", Older, "v1")]
fn a_deployment(#[case] in_pod: &str, #[case] deployed: &str, #[case] revision: Revision, #[case] key: &str) {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let mut of_set = template(in_pod);
    of_set["metadata"]["labels"]["pod-template-hash"] = json!("1");
    let cluster = chain(&set, &of_set, &deployment, with_template(&template(deployed)));
    let pod = pod_of(Some(set), in_pod, &[]);
    let expected = ("Deployment".to_owned(), key.to_owned(), revision);
    assert_eq!(climbed(&pod, &cluster), Some(expected));
}

/// Other webhooks rewrite images; the revision is what stays the same.
#[test]
fn the_key_is_the_templates_image_not_the_rewritten_one_of_the_pod() {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let cluster = chain(&set, &template("shop:v1"), &deployment, with_template(&template("shop:v1")));
    let pod = pod_of(Some(set), "mirror/shop@sha256:1", &[]);
    let (_, key, revision) = climbed(&pod, &cluster).unwrap();
    assert_eq!((key.as_str(), revision), ("shop:v1", Current));
}

#[rstest]
#[case::updated(json!({ "observedGeneration": 2, "updateRevision": "db-2" }), "db-2", Current)]
#[case::older(json!({ "observedGeneration": 2, "updateRevision": "db-2" }), "db-1", Older)]
#[case::status_lags(json!({ "observedGeneration": 1, "updateRevision": "db-1" }), "db-1", Unknown)]
fn a_stateful_set(#[case] status: Value, #[case] hash: &str, #[case] revision: Revision) {
    let set = owner("apps/v1", "StatefulSet", "db");
    let object = json!({ "metadata": { "generation": 2 }, "spec": { "template": template("shop:v2") }, "status": status });
    let cluster = BTreeMap::from([(set.clone(), Some(object))]);
    let pod = pod_of(Some(set), "shop:pod", &[("controller-revision-hash", hash)]);
    let key = if revision == Current { "shop:v2" } else { "shop:pod" };
    let expected = ("StatefulSet".to_owned(), key.to_owned(), revision);
    assert_eq!(climbed(&pod, &cluster), Some(expected));
}

/// Its own image may have been rewritten by another webhook.
#[rstest]
#[case::of_a_stateful_set("StatefulSet", "db-1", "db-1")]
#[case::of_a_daemon_set("DaemonSet", "1", "db-1")]
fn the_key_of_an_older_revision_is_in_the_template_that_is_kept_of_it(
    #[case] kind: &str,
    #[case] hash: &str,
    #[case] kept: &str,
) {
    let set = owner("apps/v1", kind, "db");
    let object = json!({
        "metadata": { "generation": 2, "annotations": { "deprecated.daemonset.template.generation": "2" } },
        "spec": { "template": template("shop:v2") },
        "status": { "observedGeneration": 2, "updateRevision": "db-2" },
    });
    let kept = OwnerRef { uid: None, ..owner("apps/v1", "ControllerRevision", kept) };
    let revision = json!({ "data": { "spec": { "template": template("shop:v1") } } });
    let cluster = BTreeMap::from([(set.clone(), Some(object)), (kept, Some(revision))]);
    let labels = [("controller-revision-hash", hash), ("pod-template-generation", "1")];
    let pod = pod_of(Some(set), "mirror/shop@sha256:1", &labels);
    assert_eq!(climbed(&pod, &cluster), Some((kind.to_owned(), "shop:v1".to_owned(), Older)));
}

#[rstest]
#[case::newest(&[("pod-template-generation", "2")], Current)]
#[case::older(&[("pod-template-generation", "1")], Older)]
#[case::unlabelled(&[], Unknown)]
fn a_daemon_set(#[case] labels: &[(&str, &str)], #[case] revision: Revision) {
    let set = owner("apps/v1", "DaemonSet", "agent");
    let object = json!({
        "metadata": { "annotations": { "deprecated.daemonset.template.generation": "2" } },
        "spec": { "template": template("shop:v2") },
    });
    let cluster = BTreeMap::from([(set.clone(), Some(object))]);
    let pod = pod_of(Some(set), "shop:v2", labels);
    assert_eq!(climbed(&pod, &cluster).unwrap().2, revision);
}

/// From v2 to v3 and back, before its Pods were replaced: its controller leaves them as they are.
#[rstest]
#[case::set_back("shop:v2", Current)]
#[case::gone_on("shop:v1", Older)]
fn a_daemon_set_whose_template_was_set_back(#[case] kept: &str, #[case] revision: Revision) {
    let set = owner("apps/v1", "DaemonSet", "agent");
    let object = json!({
        "metadata": { "annotations": { "deprecated.daemonset.template.generation": "3" } },
        "spec": { "template": template("shop:v2") },
    });
    // As the controller keeps it.
    let mut of_pod = template(kept);
    of_pod["$patch"] = json!("replace");
    let history = OwnerRef { uid: None, ..owner("apps/v1", "ControllerRevision", "agent-5f") };
    let history_object = json!({ "data": { "spec": { "template": of_pod } } });
    let cluster = BTreeMap::from([(set.clone(), Some(object)), (history, Some(history_object))]);
    let labels = [("controller-revision-hash", "5f"), ("pod-template-generation", "1")];
    let pod = pod_of(Some(set), "mirror/shop@sha256:1", &labels);
    assert_eq!(climbed(&pod, &cluster), Some(("DaemonSet".to_owned(), kept.to_owned(), revision)));
}

#[test]
fn a_cron_job_through_its_job() {
    let (job, cron) = (owner("batch/v1", "Job", "nightly-1"), owner("batch/v1", "CronJob", "nightly"));
    let top =
        json!({ "metadata": {}, "spec": { "jobTemplate": { "spec": { "template": template("shop:v1") } } } });
    let mut made = template("shop:v1");
    made["metadata"]["labels"]["job-name"] = json!("nightly-1");
    let pod = pod_of(Some(job.clone()), "shop:v1", &[]);
    let expected = ("CronJob".to_owned(), "shop:v1".to_owned(), Current);
    assert_eq!(climbed(&pod, &chain(&job, &made, &cron, top)), Some(expected));
}

#[rstest]
#[case::with_its_own_template(with_template(&template("shop:v1")))]
#[case::with_a_borrowed_template(
    json!({ "spec": { "workloadRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } })
)]
fn an_argo_rollout(#[case] rollout: Value) {
    let (set, top) =
        (owner("apps/v1", "ReplicaSet", "web-1"), owner("argoproj.io/v1alpha1", "Rollout", "web"));
    let mut cluster = chain(&set, &template("shop:v1"), &top, rollout);
    let borrowed = OwnerRef { uid: None, ..owner("apps/v1", "Deployment", "web") };
    cluster.insert(borrowed, Some(with_template(&template("shop:v1"))));
    let pod = pod_of(Some(set), "shop:v1", &[]);
    let expected = ("Rollout".to_owned(), "shop:v1".to_owned(), Current);
    assert_eq!(climbed(&pod, &cluster), Some(expected));
}

/// A canary and the stable Pods beside it: which is which is said by their labels.
#[rstest]
#[case::canary("2", "5f", "5f", Current)]
#[case::stable("2", "5f", "7a", Older)]
#[case::status_lags("1", "5f", "5f", Unknown)]
fn a_rollout_midway(
    #[case] observed: &str,
    #[case] current: &str,
    #[case] of_pod: &str,
    #[case] revision: Revision,
) {
    let (set, top) =
        (owner("apps/v1", "ReplicaSet", "web-1"), owner("argoproj.io/v1alpha1", "Rollout", "web"));
    let rollout = json!({
        "metadata": { "generation": 2 },
        "spec": { "template": template("shop:v1") },
        "status": { "observedGeneration": observed, "currentPodHash": current },
    });
    let cluster = chain(&set, &template("shop:v1"), &top, rollout);
    let pod = pod_of(Some(set), "shop:v1", &[("rollouts-pod-template-hash", of_pod)]);
    assert_eq!(climbed(&pod, &cluster).unwrap().2, revision);
}

/// As Knative has them: kinds of its own above a Deployment, which is where people stop to look.
#[test]
fn owners_above_a_deployment_are_of_no_interest() {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let above = owner("serving.knative.dev/v1", "Revision", "web-00001");
    let cluster = chain(&set, &template("shop:v1"), &deployment, owned_by(&above, &template("shop:v1")));
    let pod = pod_of(Some(set), "shop:v1", &[]);
    assert_eq!(climbed(&pod, &cluster).unwrap().0, "Deployment");
}

#[test]
fn an_owner_that_vanishes_in_the_middle_ends_the_climb_below_it() {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let mut cluster = chain(&set, &template("shop:v1"), &deployment, with_template(&template("shop:v1")));
    cluster.insert(deployment, None);
    let pod = pod_of(Some(set), "shop:v1", &[]);
    assert_eq!(climbed(&pod, &cluster).unwrap().0, "ReplicaSet");
}

#[test]
fn every_owner_is_asked_for_once_however_many_pods_it_has() {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let mut snapshot = World::new().snapshot();
    snapshot.pods = (0..50)
        .map(|number| PodFacts { name: format!("pod-{number}"), ..pod_of(Some(set.clone()), "shop:v1", &[]) })
        .collect();
    let valid = validate(&World::new().spec).expect("a spec that can be followed");
    let mut asked = Vec::new();
    let cluster = chain(&set, &template("shop:v1"), &deployment, with_template(&template("shop:v1")));
    loop {
        let wanted = wanted(&valid, &snapshot);
        if wanted.is_empty() {
            break;
        }
        for reference in wanted {
            snapshot.owners.insert(reference.clone(), cluster.get(&reference).cloned().flatten());
            asked.push(reference.kind);
        }
    }
    assert_eq!(asked, ["ReplicaSet", "Deployment"]);
    let survey = survey(&valid, &snapshot.pods, &snapshot.owners);
    let first = &survey.members[0].origin;
    assert!(survey.members.iter().all(|member| std::rc::Rc::ptr_eq(&member.origin, first)));
}

#[test]
fn an_unknown_kind_with_a_pod_template() {
    let set = owner("apps.kruise.io/v1beta1", "CloneSet", "web");
    let cluster = BTreeMap::from([(set.clone(), Some(with_template(&template("shop:v1"))))]);
    let pod = pod_of(Some(set), "shop:v1", &[]);
    assert_eq!(climbed(&pod, &cluster).unwrap().0, "CloneSet");
}

/// Its template may have been changed under the Pod: what the Pod is of can't be told from it.
#[rstest]
#[case::as_in_the_template("shop:v2", Current, "shop:v2")]
#[case::older_or_rewritten("shop:v1", Older, "shop:v1")]
fn a_pod_of_a_kind_with_one_template_is_of_it_only_with_its_image(
    #[values(("v1", "ReplicationController"), ("apps/v1", "ReplicaSet"), ("apps.kruise.io/v1beta1", "CloneSet"))]
    kind: (&str, &str),
    #[case] image: &str,
    #[case] revision: Revision,
    #[case] key: &str,
) {
    let set = owner(kind.0, kind.1, "web");
    let cluster = BTreeMap::from([(set.clone(), Some(with_template(&template("shop:v2"))))]);
    let pod = pod_of(Some(set), image, &[("controller-revision-hash", "web-1")]);
    assert_eq!(climbed(&pod, &cluster), Some((kind.1.to_owned(), key.to_owned(), revision)));
}

#[test]
fn an_owner_without_a_pod_template_ends_the_climb_below_it() {
    let (set, top) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("example.org/v1", "Shop", "shop"));
    let cluster = chain(&set, &template("shop:v1"), &top, json!({ "spec": { "size": 3 } }));
    let pod = pod_of(Some(set), "shop:v1", &[]);
    assert_eq!(climbed(&pod, &cluster).unwrap().0, "ReplicaSet");
}

/// As a chart's custom kind that has a Pod template of something else.
#[test]
fn an_owner_whose_template_lacks_the_key_container_ends_the_climb_below_it() {
    let (set, top) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("example.org/v1", "Shop", "shop"));
    let other = json!({ "spec": { "containers": [{ "name": "other", "image": "other:v1" }] } });
    let cluster = chain(&set, &template("shop:v1"), &top, with_template(&other));
    let mut spec = World::new().spec;
    spec.container = Some("app".to_owned());
    let pod = pod_of(Some(set), "shop:v1", &[]);
    assert_eq!(climbed_by(&spec, &pod, &cluster).unwrap().0, "ReplicaSet");
}

#[test]
fn an_owner_that_cannot_be_read_leaves_the_pod_itself() {
    let pod = pod_of(Some(owner("v1", "Node", "worker")), "shop:v1", &[]);
    let whole = json!({ "spec": { "containers": [{ "name": "app", "image": "shop:v1" }] } });
    let cluster = BTreeMap::from([(itself(&pod), Some(whole))]);
    let expected = ("Pod".to_owned(), "shop:v1".to_owned(), Current);
    assert_eq!(climbed(&pod, &cluster), Some(expected));
}

#[test]
fn a_pod_that_is_gone_meanwhile_has_no_workload() {
    let pod = pod_of(None, "shop:v1", &[]);
    assert_eq!(climbed(&pod, &Owners::new()), None);
}

#[test]
fn a_ring_of_owners_has_an_end() {
    let (one, other) = (owner("x/v1", "One", "one"), owner("x/v1", "Other", "other"));
    let cluster = BTreeMap::from([
        (one.clone(), Some(owned_by(&other, &template("shop:v1")))),
        (other.clone(), Some(owned_by(&one, &template("shop:v1")))),
    ]);
    let pod = pod_of(Some(one), "shop:v1", &[]);
    assert!(climbed(&pod, &cluster).is_some());
}
