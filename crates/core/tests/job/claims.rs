//! Claims that a run shares with serving Pods.

use std::collections::BTreeMap;

use migrations_api::Reason;
use migrations_core::job::claims_named_by;
use migrations_core::snapshot::{ClaimFacts, Owners, Snapshot};
use migrations_core::validate::Refusal;
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{run, template, with};
use crate::world::{World, owner, serve};

/// A Pod that mounts `claim`, by its name and node.
type User<'a> = (&'a str, &'a str, Option<&'a str>);

fn snapshot(claims: &[(&str, &[&str])], users: &[User<'_>]) -> Snapshot {
    let mut world = World::new();
    for (claim, name, node) in users {
        let pod = world.pod("web", "shop:v1");
        pod.name = (*name).to_owned();
        pod.node = node.map(str::to_owned);
        pod.claims = vec![(*claim).to_owned()];
    }
    let mut snapshot = world.snapshot();
    let facts = |modes: &[&str]| ClaimFacts { access_modes: modes.iter().map(|&it| it.to_owned()).collect() };
    snapshot.claims = claims.iter().map(|(name, modes)| ((*name).to_owned(), facts(modes))).collect();
    snapshot
}

/// The node affinity of a run whose template mounts these claims.
fn affinity(claims: &[&str], spec: Value, snapshot: &Snapshot) -> Result<Value, Refusal> {
    let volumes: Vec<_> = claims
        .iter()
        .map(|claim| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } }))
        .collect();
    let template = template(with(spec, json!({ "volumes": volumes })), json!({}));
    let job = run(json!({}), snapshot, &template)?.job;
    let path = "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    Ok(job.pointer(path).cloned().unwrap_or_default())
}

fn on(node: &str) -> Value {
    json!({ "key": "metadata.name", "operator": "In", "values": [node] })
}

#[rstest]
#[case::held(&["ReadWriteOnce"], &[("media", "web", Some("a"))], Some("a"))]
#[case::held_by_a_pod_without_a_node(&["ReadWriteOnce"], &[("media", "web", None)], None)]
#[case::held_by_nobody(&["ReadWriteOnce"], &[("other", "web", Some("a"))], None)]
#[case::of_many_nodes(&["ReadWriteMany"], &[("media", "web", Some("a"))], None)]
#[case::of_one_or_many_nodes(&["ReadWriteOnce", "ReadWriteMany"], &[("media", "web", Some("a"))], None)]
#[case::the_oldest_pod_has_it(&["ReadWriteOnce"], &[("media", "old", Some("a")), ("media", "new", Some("b"))], Some("a"))]
fn a_run_is_pinned_to_the_node_of_the_pod_that_holds_its_claim(
    #[case] modes: &[&str],
    #[case] users: &[User<'_>],
    #[case] node: Option<&str>,
) {
    let pinned = affinity(&["media"], json!({}), &snapshot(&[("media", modes)], users)).unwrap();
    let expected =
        node.map_or(Value::Null, |node| json!({ "nodeSelectorTerms": [{ "matchFields": [on(node)] }] }));
    assert_eq!(pinned, expected);
}

#[test]
fn a_claim_that_cannot_be_read_pins_nothing() {
    let snapshot = snapshot(&[], &[("media", "web", Some("a"))]);
    assert_eq!(affinity(&["media"], json!({}), &snapshot).unwrap(), Value::Null);
}

#[test]
fn of_two_nodes_the_one_where_containers_could_start_has_the_volume() {
    let mut snapshot = snapshot(
        &[("media", &["ReadWriteOnce"])],
        &[("media", "old", Some("a")), ("media", "new", Some("b"))],
    );
    serve(&mut snapshot.pods[1]);
    let pinned = affinity(&["media"], json!({}), &snapshot).unwrap();
    assert_eq!(pinned["nodeSelectorTerms"][0]["matchFields"], json!([on("b")]));
}

#[test]
fn a_finished_pod_holds_nothing() {
    for modes in [["ReadWriteOnce"], ["ReadWriteOncePod"]] {
        let mut snapshot = snapshot(&[("media", &modes)], &[("media", "web", Some("a"))]);
        snapshot.pods[0].phase = "Succeeded".to_owned();
        assert_eq!(affinity(&["media"], json!({}), &snapshot).unwrap(), Value::Null);
    }
}

/// Of the terms one has to hold, so that each has to say it. An empty one matches no node.
#[test]
fn the_pin_goes_into_each_term_of_the_templates_own_node_affinity() {
    let zone = |zone: &str| json!({ "key": "zone", "operator": "In", "values": [zone] });
    let terms = json!([
        { "matchExpressions": [zone("1")] },
        { "matchFields": [on("a")] },
        {},
    ]);
    let required =
        json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
    let snapshot = snapshot(&[("media", &["ReadWriteOnce"])], &[("media", "web", Some("a"))]);
    let pinned =
        affinity(&["media"], json!({ "affinity": { "nodeAffinity": required } }), &snapshot).unwrap();
    let expected = json!([
        { "matchExpressions": [zone("1")], "matchFields": [on("a")] },
        { "matchFields": [on("a"), on("a")] },
        {},
    ]);
    assert_eq!(pinned["nodeSelectorTerms"], expected);
}

#[test]
fn two_claims_held_on_one_node_pin_to_it() {
    let modes: &[&str] = &["ReadWriteOnce"];
    let users = [("media", "web", Some("a")), ("logs", "job", Some("a"))];
    let pinned =
        affinity(&["media", "logs"], json!({}), &snapshot(&[("media", modes), ("logs", modes)], &users));
    assert_eq!(pinned.unwrap()["nodeSelectorTerms"].as_array().unwrap().len(), 1);
}

#[rstest]
#[case::of_one_pod_alone(
    &[("media", "ReadWriteOncePod")], &[("media", "web-0", None)],
    &["claim media", "ReadWriteOncePod", "Pod web-0", "spec.templateSelector"]
)]
#[case::on_different_nodes(
    &[("media", "ReadWriteOnce"), ("logs", "ReadWriteOnce")],
    &[("media", "web-0", Some("a")), ("logs", "job-0", Some("b"))],
    &["claims media", "Pod web-0 on node a", "logs", "Pod job-0 on node b", "spec.templateSelector"]
)]
fn claims_that_no_run_can_share_are_refused_with_a_way_out(
    #[case] claims: &[(&str, &str)],
    #[case] users: &[User<'_>],
    #[case] said: &[&str],
) {
    let claims: Vec<_> = claims.iter().map(|(claim, mode)| (*claim, std::slice::from_ref(mode))).collect();
    let refusal = affinity(&["media", "logs"], json!({}), &snapshot(&claims, users)).unwrap_err();
    assert_eq!(refusal.reason, Reason::ClaimInUse);
    for part in said {
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }
}

#[test]
fn claims_are_named_by_templates_of_every_shape_and_by_bare_pods() {
    let spec = |claim: &str| json!({ "containers": [], "volumes": [{ "persistentVolumeClaim": { "claimName": claim } }, { "emptyDir": {} }] });
    let owners: Owners = BTreeMap::from([
        (
            owner("apps/v1", "Deployment", "web"),
            Some(json!({ "spec": { "template": { "spec": spec("a") } } })),
        ),
        (
            owner("apps/v1", "ReplicaSet", "web-1"),
            Some(json!({ "spec": { "template": { "spec": spec("a") } } })),
        ),
        (
            owner("batch/v1", "CronJob", "nightly"),
            Some(json!({ "spec": { "jobTemplate": { "spec": { "template": { "spec": spec("b") } } } } })),
        ),
        (owner("v1", "Pod", "bare"), Some(json!({ "kind": "Pod", "spec": spec("c") }))),
        (owner("x/v1", "Unknown", "unreadable"), None),
    ]);
    assert_eq!(claims_named_by(&owners).into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}
