//! What is due, released, superseded or a baseline, a test a sentence of the contract (§3).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::{How, RerunOn};
use migrations_core::plan::Effect;
use rstest::rstest;
use serde_json::json;
use world::{World, admitted, serve, waiting};

fn leading(world: &mut World) {
    world.spec.template_selector =
        Some(serde_json::from_value(json!({ "matchLabels": { "role": "leader" } })).unwrap());
}

fn leader(world: &mut World, deployment: &str, image: &str) {
    world.deploy(deployment, image);
    world.pod(deployment, image).labels.insert("role".to_owned(), "leader".to_owned());
}

fn revisions(world: &World, key: &str) -> usize {
    world.status.done.iter().find(|done| done.key == key).map_or(0, |done| done.revisions.len())
}

/// The v3 to v4 story: nobody else would replace the Pod of the revision that failed.
#[test]
fn a_stateful_set_leaves_a_broken_revision_behind() {
    let mut world = World::new();
    world.deploy_stateful("db", "shop:v2");
    for ordinal in 0..3 {
        world.stateful_pod("db", ordinal, "shop:v2");
    }
    world.migrate().release().settle();
    world.deploy_stateful("db", "shop:v3").stateful_pod("db", 2, "shop:v3");
    world.settle().run_starts().settle().run_ends(1, "boom").settle();
    assert_eq!(world.reason(), "MigrationFailed");

    let plan = world.deploy_stateful("db", "shop:v4").look();
    let deleted = |effect: &Effect| matches!(effect, Effect::DeletePod { name, .. } if name == "db-2");
    assert!(plan.effects.iter().any(deleted), "{:?}", plan.effects);
    assert!(plan.events.iter().any(|event| event.note.contains("deleted Pod db-2")), "{:?}", plan.events);
    world.stateful_pod("db", 2, "shop:v4");
    world.migrate().release().settle();
    assert_eq!(world.started, ["shop:v2", "shop:v3", "shop:v4"]);
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn while_the_gate_is_open_no_pod_is_deleted() {
    let mut world = World::new();
    world.deploy_stateful("db", "shop:v1").stateful_pod("db", 0, "shop:v1");
    world.deploy_stateful("db", "shop:v2");
    world.requests.open = true;
    world.settle();
    assert_eq!(world.pods.len(), 1);
    world.requests.open = false;
    world.settle();
    assert!(world.pods.is_empty());
}

#[test]
fn a_pod_of_an_older_revision_whose_application_started_is_never_deleted() {
    let mut world = World::new();
    world.deploy_stateful("db", "shop:v1");
    serve(world.stateful_pod("db", 0, "shop:v1"));
    world.deploy_stateful("db", "shop:v2").stateful_pod("db", 1, "shop:v2");
    world.settle();
    assert_eq!(world.pods.len(), 2);
    assert_eq!(world.status.done[0].how, How::Baseline);
}

/// Pods of a Deployment's older revision are replaced by it; their waiters say so until then.
#[test]
fn pods_of_an_older_revision_that_was_never_migrated_are_superseded() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    world.roll_out("web", "shop:v2").settle();
    assert_eq!(world.true_conditions(), ["Reconciling"], "of what runs, not of those superseded");
    let [superseded] = &world.status.superseded[..] else { panic!("{:?}", world.status.superseded) };
    assert!(superseded.reason.contains("Deployment web has gone on from shop:v1"), "{}", superseded.reason);
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
    world.pods.retain(|pod| pod.containers[0].image == "shop:v2");
    world.run_starts().run_ends(0, "").settle();
    assert!(world.status.superseded.is_empty());
}

#[test]
fn rolling_back_to_a_superseded_revision_makes_it_due() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").roll_out("web", "shop:v2").settle();
    assert_eq!(world.started, ["shop:v2"]);
    world.deploy("web", "shop:v1").settle().run_starts().run_ends(0, "").settle();
    world.settle();
    assert_eq!(world.started, ["shop:v2", "shop:v1"]);
}

#[test]
fn pods_of_an_older_revision_with_the_image_that_is_being_migrated_are_not_superseded() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    let deployment = world.owners.iter_mut().find(|(owner, _)| owner.kind == "Deployment").unwrap();
    deployment.1.as_mut().unwrap()["spec"]["template"]["metadata"]["annotations"] =
        json!({ "restarted": "now" });
    world.settle();
    assert!(world.status.superseded.is_empty());
    assert_eq!(world.status.waiting, Some(1));
}

/// v2 failed and its template was set back to v1: what waits as v2 isn't v1.
#[test]
fn a_held_pod_of_a_custom_kind_is_not_released_by_what_its_template_has_become() {
    let mut world = World::new();
    let set = world::owner("apps.kruise.io/v1beta1", "CloneSet", "web");
    let deploy = |world: &mut World, image: &str| {
        let object = json!({ "metadata": {}, "spec": { "template": world::template("web", image, None) } });
        world.owners.insert(world::owner("apps.kruise.io/v1beta1", "CloneSet", "web"), Some(object));
    };
    let held = |world: &mut World, image: &str| {
        let pod = world.pod("web", image);
        pod.owner = Some(set.clone());
        pod.labels.insert("controller-revision-hash".to_owned(), world::hash(image));
        pod.admitted = Some(admitted(image, Some(format!("uid-web/{}", world::hash(image)))));
    };
    deploy(&mut world, "shop:v1");
    held(&mut world, "shop:v1");
    world.migrate().release().settle();
    deploy(&mut world, "shop:v2");
    held(&mut world, "shop:v2");
    world.settle().run_starts().run_ends(1, "boom").settle();
    deploy(&mut world, "shop:v1");
    world.settle();
    assert_eq!(world.status.waiting, Some(1));
    assert_eq!(revisions(&world, "shop:v1"), 0);
}

#[test]
fn the_newest_twenty_images_and_those_of_live_pods_stay_done() {
    let mut world = World::new();
    world.roll_out("web", "shop:v0").migrate().release().settle();
    for version in 1..=25 {
        world.roll_out("worker", &format!("shop:v{version}")).migrate();
        world.pods.retain(|pod| pod.containers[0].image == "shop:v0");
    }
    world.settle();
    assert_eq!(world.done().len(), 21);
    assert!(world.done().contains(&"shop:v0") && world.done().contains(&"shop:v6"), "{:?}", world.done());
    assert_eq!(world.status.history.len(), 10);
}

/// `kubectl rollout undo --to-revision=1`: a Deployment keeps ten `ReplicaSets` besides its current one.
#[test]
fn going_back_to_the_oldest_revision_that_a_deployment_keeps_runs_nothing() {
    let mut world = World::new();
    for version in 0..=10 {
        world.roll_out("web", &format!("shop:v{version}")).migrate().release().settle();
        world.pods.drain(..world.pods.len() - 1);
    }
    world.settle();
    world.roll_out("web", "shop:v0").settle();
    assert_eq!((world.started.len(), world.status.waiting), (11, Some(0)));
}

/// Rewritten by another webhook before ours: the waiter asks for what it was given.
#[test]
fn a_revision_is_tied_to_its_key_where_the_image_was_rewritten() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    let pod = world.pods.last_mut().unwrap();
    let revision = pod.admitted.as_ref().unwrap().revision.clone();
    pod.containers[0].image = "mirror/shop@sha256:1".to_owned();
    pod.admitted = Some(admitted("mirror/shop@sha256:1", revision.clone()));
    world.migrate();
    assert_eq!(world.started, ["shop:v1"]);
    assert_eq!(world.status.done[0].revisions, [revision.unwrap()]);
    assert_eq!(world.status.waiting, Some(0));
}

#[test]
fn a_revision_whose_image_is_the_key_is_not_written_down() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").migrate();
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(revisions(&world, "shop:v1"), 0);
}

/// `kubectl set image pod`: what the Pod waits for was said at its admission.
#[test]
fn an_image_that_is_changed_in_a_waiting_pod_changes_nothing() {
    let mut world = World::new();
    let pod = world.pod("web", "shop:v1");
    pod.owner = None;
    pod.admitted = Some(admitted("shop:v1", None));
    pod.containers[0].image = "shop:v2".to_owned();
    let pod = pod.clone();
    let whole = json!({ "spec": { "containers": [{ "name": "app", "image": "shop:v2" }] } });
    let itself = world::owner("v1", "Pod", &pod.name);
    world.owners.insert(itself, Some(whole));
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn another_containers_image_put_first_by_a_mesh_is_not_the_key() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    world.pods[0].containers.insert(0, waiting("istio-proxy", "proxy:1"));
    world.migrate();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!(world.status.container.as_deref(), Some("app"));
}

#[test]
fn a_changed_image_of_the_run_makes_what_is_deployed_due_once_more_and_holds_nobody() {
    let mut world = World::new();
    world.spec.image = Some("ddl:1".to_owned());
    world.roll_out("web", "shop:v1").migrate().release().settle();
    world.spec.image = Some("ddl:2".to_owned());
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.status.waiting, Some(0));
    world.run_starts().run_ends(0, "").settle();
    assert_eq!(world.status.done[0].image, "ddl:2");
    assert!(!world.status.done[0].rerun);
    world.spec.image = None;
    world.migrate();
    assert_eq!(world.started.len(), 3);
    assert_eq!(world.reason(), "UpToDate");
}

/// Its key isn't done yet, and will be by the image that it started with.
#[test]
fn an_image_of_the_run_that_changes_while_one_is_under_way_is_run_after_it() {
    let mut world = World::new();
    world.spec.image = Some("ddl:1".to_owned());
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.spec.image = Some("ddl:2".to_owned());
    world.settle().run_ends(0, "").settle();
    assert_eq!((world.started.len(), world.status.waiting), (2, Some(0)));
    world.run_starts().settle().run_ends(0, "").settle();
    assert_eq!((world.status.done[0].image.as_str(), world.started.len()), ("ddl:2", 2));
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn a_rollback_runs_nothing_although_the_image_of_the_run_has_changed_since() {
    let mut world = World::new();
    world.spec.image = Some("ddl:1".to_owned());
    world.roll_out("web", "shop:v1").migrate().release().settle();
    world.pods.clear();
    world.spec.image = Some("ddl:2".to_owned());
    world.roll_out("web", "shop:v2").migrate().release().settle();
    world.roll_out("web", "shop:v1").settle();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
}

#[test]
fn a_follower_is_tied_to_what_its_leaders_have_done() {
    let mut world = World::new();
    leading(&mut world);
    leader(&mut world, "web", "shop:v1");
    world.roll_out("worker", "worker:v1").settle();
    assert_eq!((world.started.clone(), world.status.waiting), (vec!["shop:v1".to_owned()], Some(2)));
    world.run_starts().run_ends(0, "").settle();
    assert_eq!(revisions(&world, "shop:v1"), 1);
    assert_eq!(world.status.waiting, Some(0));
    assert_eq!(world.started, ["shop:v1"], "a follower's own image is never run");
}

#[test]
fn a_follower_waits_while_one_of_its_leaders_is_not_done() {
    let mut world = World::new();
    leading(&mut world);
    leader(&mut world, "web", "shop:v1");
    world.migrate();
    leader(&mut world, "web", "shop:v2");
    world.pods.retain(|pod| pod.containers[0].image == "shop:v2");
    world.roll_out("worker", "worker:v1").settle();
    assert_eq!(revisions(&world, "shop:v1"), 0);
    world.run_starts().run_ends(0, "").settle();
    assert_eq!(revisions(&world, "shop:v2"), 1);
}

#[test]
fn a_follower_waits_for_all_of_its_leaders() {
    let mut world = World::new();
    leading(&mut world);
    leader(&mut world, "web", "shop:v1");
    leader(&mut world, "api", "api:v1");
    world.roll_out("worker", "worker:v1").settle().run_starts().run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!(revisions(&world, "shop:v1"), 0);
    world.run_starts().run_ends(0, "").settle();
    assert_eq!(world.status.waiting, Some(0));
}

#[test]
fn what_was_never_run_is_not_run_once_more_for_another_image_of_the_run() {
    let mut world = World::new();
    world.requests.done = Some("shop:v1".to_owned());
    world.roll_out("web", "shop:v1").settle();
    world.spec.image = Some("ddl:1".to_owned());
    world.settle();
    assert!(world.started.is_empty());
}

#[test]
fn a_new_template_with_the_same_image_is_a_migration_where_templates_count() {
    let mut world = World::new();
    world.spec.rerun_on = Some(RerunOn::Template);
    world.roll_out("web", "shop:v1").migrate();
    assert_eq!(world.status.waiting, Some(0));
    assert!(world.done()[0].starts_with("shop:v1#"), "{:?}", world.done());
    assert_eq!(revisions(&world, world.done()[0]), 1);

    for object in world.owners.values_mut().flatten() {
        object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["serve", "--fast"]);
    }
    let pod = world.pod("web", "shop:v1");
    pod.admitted.as_mut().unwrap().revision = Some("uid-web-new/new".to_owned());
    world.pods.remove(0);
    world.settle();
    assert_eq!(world.started.len(), 2);
}

#[test]
fn each_job_of_a_cron_job_is_the_same_template() {
    let mut world = World::new();
    world.spec.rerun_on = Some(RerunOn::Template);
    world.owners.insert(
        world::owner("batch/v1", "CronJob", "nightly"),
        Some(json!({ "metadata": {}, "spec": { "jobTemplate": { "spec": {
            "template": world::template("nightly", "shop:v1", None),
        }}}})),
    );
    for job in ["nightly-1", "nightly-2"] {
        world.owners.insert(
            world::owner("batch/v1", "Job", job),
            Some(json!({
                "metadata": { "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly",
                    "uid": "uid-nightly", "controller": true }] },
                "spec": { "template": world::template("nightly", "shop:v1", None) },
            })),
        );
        let pod = world.pod("nightly", "shop:v1");
        pod.owner = Some(world::owner("batch/v1", "Job", job));
        pod.admitted = Some(admitted("shop:v1", Some(format!("uid-{job}"))));
        world.migrate();
    }
    assert_eq!(world.started.len(), 1);
    assert_eq!(world.status.waiting, Some(0));
}

#[test]
fn a_job_that_its_cron_job_has_left_behind_is_told_with_the_way_out() {
    let mut world = World::new();
    let cron = |image: &str| {
        json!({ "metadata": {}, "spec": { "jobTemplate": { "spec": {
            "template": world::template("nightly", image, None),
        }}}})
    };
    world.owners.insert(world::owner("batch/v1", "CronJob", "nightly"), Some(cron("shop:v2")));
    world.owners.insert(
        world::owner("batch/v1", "Job", "nightly-1"),
        Some(json!({
            "metadata": { "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly",
                "uid": "uid-nightly", "controller": true }] },
            "spec": { "template": world::template("nightly", "shop:v1", None) },
        })),
    );
    let pod = world.pod("nightly", "shop:v1");
    pod.owner = Some(world::owner("batch/v1", "Job", "nightly-1"));
    pod.admitted = Some(admitted("shop:v1", Some("uid-nightly-1".to_owned())));
    let plan = world.look();
    assert!(world.started.is_empty());
    let [event] = &plan.events[..] else { panic!("{:?}", plan.events) };
    assert!(event.warning && event.note.contains("kubectl delete job nightly-1"), "{}", event.note);
    assert!(world.look().events.is_empty(), "told once");
}

#[test]
fn an_image_that_is_marked_is_done_without_a_run() {
    let mut world = World::new();
    world.requests.done = Some("shop:v1".to_owned());
    world.roll_out("web", "shop:v1").settle();
    assert!(world.started.is_empty());
    assert_eq!(world.status.done[0].how, How::Marked);
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn an_opened_gate_is_shown_and_told_once() {
    let mut world = World::new();
    world.requests.open = true;
    let plan = world.look();
    assert_eq!(plan.events.len(), 1);
    assert!(world.true_conditions().contains(&"GateOpen"));
    assert!(world.look().events.is_empty());
    world.requests.open = false;
    world.settle();
    assert!(!world.true_conditions().contains(&"GateOpen"));
}

#[test]
fn pods_without_a_gate_are_told_once() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    let pod = world.pod("web", "shop:v1");
    pod.init_containers.clear();
    pod.admitted = None;
    let plan = world.look();
    assert!(plan.events.iter().any(|event| event.reason.as_str() == "Ungated"), "{:?}", plan.events);
    assert!(world.look().events.iter().all(|event| event.reason.as_str() != "Ungated"));
}

#[test]
fn the_originals_image_of_the_run_stays_and_with_it_what_has_started() {
    let mut world = World::new();
    world.spec.image = Some("ddl:1".to_owned());
    world.status.last_successful_migration = Some("ddl:1".to_owned());
    world.roll_out("web", "shop:v1");
    serve(world.pods.last_mut().unwrap());
    world.settle();
    assert!(world.started.is_empty());
    assert_eq!(world.done(), ["ddl:1", "shop:v1"]);
}

#[rstest]
#[case::no_wait(true)]
#[case::waiting(false)]
fn pods_with_no_wait_count_as_matching(#[case] no_wait: bool) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    world.pods[0].no_wait = no_wait;
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn the_source_is_a_pod_of_a_kind_that_serves_before_a_jobs() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    world.pod("web", "shop:v1");
    world.owners.insert(
        world::owner("batch/v1", "Job", "once"),
        Some(json!({ "metadata": {}, "spec": { "template": world::template("once", "shop:v1", None) } })),
    );
    let pod = world.pod("once", "shop:v1");
    pod.owner = Some(world::owner("batch/v1", "Job", "once"));
    pod.admitted = Some(admitted("shop:v1", Some("uid-once".to_owned())));
    world.settle();
    assert_eq!(world.status.source.as_ref().unwrap().name, "web");
}

#[rstest]
#[case::the_newest(&["old", "new"], "new")]
#[case::whatever_the_order(&["new", "old"], "new")]
#[case::the_name_settles_the_rest(&["b", "a"], "a")]
fn the_source_is_the_newest_pod_and_the_name_settles_what_is_equal(
    #[case] names: &[&str],
    #[case] source: &str,
) {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    let now = world.clock;
    for name in names {
        let age = if *name == "old" { 100 } else { 0 };
        let pod = world.pod("web", "shop:v1");
        pod.name = (*name).to_owned();
        pod.created = Some(jiff::Timestamp::from_second(now - age).unwrap());
    }
    world.settle();
    assert_eq!(world.status.source.as_ref().unwrap().pod, source);
}

/// Its waiter asks by what admission wrote.
#[test]
fn a_pod_whose_labels_are_changed_is_still_tied_by_what_it_was_admitted_with() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    let pod = world.pods.last_mut().unwrap();
    let revision = pod.admitted.as_ref().unwrap().revision.clone();
    pod.labels.insert("pod-template-hash".to_owned(), "other".to_owned());
    pod.admitted = Some(admitted("mirror/shop:v1", revision.clone()));
    world.migrate();
    assert_eq!(world.status.done[0].revisions, [revision.unwrap()]);
}

/// Else a failure of the one would be forgotten over the other, again and again.
#[test]
fn attempts_at_an_image_that_two_workloads_share_stay_with_one_of_them() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(1);
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    world.roll_out("worker", "shop:v1").settle().wait(11).settle().run_starts().run_ends(1, "boom").settle();
    assert_eq!(world.status.source.as_ref().unwrap().name, "web");
    assert_eq!(world.reason(), "MigrationFailed");
    world.wait(1000).settle();
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.status.history.len(), 1);
    assert_eq!(world.status.history[0].attempts, 2);
}
