//! Pods whose workload has gone on to another template, most with the same image, a test a sentence of
//! the contract (§3, §6).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_core::plan::{Effect, Plan};
use rstest::rstest;
use serde_json::{Value, json};
use world::{World, admitted, hash, owner, template};

/// A StatefulSet with that spec, whose first Pod waits.
fn stateful(spec: &Value, image: &str) -> World {
    let mut world = World::new();
    world.deploy_stateful("db", image);
    let object = object(&mut world, "StatefulSet", "db");
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    world.stateful_pod("db", 0, image);
    world
}

fn object<'w>(world: &'w mut World, kind: &str, name: &str) -> &'w mut Value {
    let found = world.owners.iter_mut().find(|(owner, _)| owner.kind == kind && owner.name == name);
    found.unwrap().1.as_mut().unwrap()
}

/// Its template gets another environment and keeps its image.
fn mend(world: &mut World, kind: &str, name: &str) {
    let object = object(world, kind, name);
    object["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{ "name": "DB", "value": "mended" }]);
    if kind == "StatefulSet" {
        object["status"]["updateRevision"] = json!(format!("{name}-mended"));
    }
}

fn mended_pod(world: &mut World, image: &str) {
    let pod = world.stateful_pod("db", 0, image);
    pod.labels.insert("controller-revision-hash".to_owned(), "db-mended".to_owned());
    pod.admitted = Some(admitted(image, Some("uid-db/db-mended".to_owned())));
}

fn deletes(plan: &Plan, pod: &str) -> bool {
    plan.effects.iter().any(|effect| matches!(effect, Effect::DeletePod { name, .. } if name == pod))
}

/// The way out that a failure names. Nobody else would ever replace the Pod.
#[rstest]
#[case::ordered(json!({}))]
#[case::on_delete(json!({ "podManagementPolicy": "Parallel", "updateStrategy": { "type": "OnDelete" } }))]
fn after_a_failure_a_mended_template_of_a_stateful_set_is_run_although_its_image_is_the_same(
    #[case] spec: Value,
) {
    let mut world = stateful(&spec, "shop:v1");
    world.settle().run_starts().settle().run_ends(1, "boom").settle();
    assert_eq!(world.reason(), "MigrationFailed");
    mend(&mut world, "StatefulSet", "db");
    let plan = world.look();
    assert!(deletes(&plan, "db-0"), "{:?}", plan.effects);
    assert!(plan.events.iter().any(|it| it.note.contains("deleted Pod db-0")), "{:?}", plan.events);
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("Pending", vec!["Reconciling"]));
    mended_pod(&mut world, "shop:v1");
    world.migrate().release().settle();
    assert_eq!((world.started.len(), world.reason().as_str()), (2, "UpToDate"));
}

#[test]
fn a_pod_of_a_stateful_set_whose_image_is_being_migrated_is_not_deleted() {
    let mut world = stateful(&json!({}), "shop:v1");
    world.settle().run_starts().settle();
    mend(&mut world, "StatefulSet", "db");
    world.settle();
    assert_eq!((world.pods.len(), world.status.superseded.len()), (1, 0));
    world.run_ends(0, "").settle();
    assert_eq!((world.status.waiting, world.started.len()), (Some(0), 1));
}

#[test]
fn a_pod_of_a_stateful_set_whose_image_is_due_for_another_workload_is_not_deleted() {
    let mut world = stateful(&json!({}), "shop:v1");
    mend(&mut world, "StatefulSet", "db");
    world.roll_out("web", "shop:v1");
    world.spec.suspend = Some(true);
    world.settle();
    assert_eq!((world.pods.len(), world.status.superseded.len()), (2, 0));
    world.spec.suspend = None;
    world.migrate();
    assert_eq!(world.status.waiting, Some(0));
}

/// Of Pods that follow others none is ever due.
#[test]
fn a_following_pod_of_a_stateful_set_does_not_wait_for_another_follower_with_its_image() {
    let mut world = stateful(&json!({}), "worker:v1");
    let selector = json!({ "matchLabels": { "role": "leader" } });
    world.spec.template_selector = Some(serde_json::from_value(selector).unwrap());
    mend(&mut world, "StatefulSet", "db");
    world.deploy("web", "shop:v1");
    world.pod("web", "shop:v1").labels.insert("role".to_owned(), "leader".to_owned());
    world.roll_out("worker", "worker:v1").migrate();
    assert!(world.pods.iter().all(|pod| pod.name != "db-0"), "{:?}", world.status);
    mended_pod(&mut world, "worker:v1");
    world.settle();
    assert_eq!((world.status.waiting, world.reason().as_str()), (Some(0), "UpToDate"));
}

/// A CronJob that forbids two Jobs at a time, whose template was mended.
fn mended_cron_job(world: &mut World) {
    let mut newer = template("nightly", "shop:v1", None);
    newer["spec"]["serviceAccountName"] = json!("ddl");
    let cron = json!({ "metadata": {}, "spec": {
        "concurrencyPolicy": "Forbid", "jobTemplate": { "spec": { "template": newer } },
    }});
    world.owners.insert(owner("batch/v1", "CronJob", "nightly"), Some(cron));
}

/// A Job of it that was made before, whose Pod waits.
fn older_job(world: &mut World, job: &str) {
    let owners = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "uid-nightly", "controller": true,
    }]);
    let made = json!({
        "metadata": { "ownerReferences": owners }, "spec": { "template": template("nightly", "shop:v1", None) },
    });
    world.owners.insert(owner("batch/v1", "Job", job), Some(made));
    let pod = world.pod("nightly", "shop:v1");
    pod.owner = Some(owner("batch/v1", "Job", job));
    pod.admitted = Some(admitted("shop:v1", Some(format!("uid-{job}"))));
}

/// There is no new Job before the old one has ended.
#[test]
fn a_job_whose_cron_job_was_mended_is_told_with_the_way_out() {
    let mut world = World::new();
    mended_cron_job(&mut world);
    older_job(&mut world, "nightly-1");
    let plan = world.look();
    let [superseded] = &world.status.superseded[..] else { panic!("{:?}", world.status) };
    assert_eq!(superseded.revision, "uid-nightly-1");
    assert!(superseded.reason.contains("has gone on from the template"), "{}", superseded.reason);
    let told = |note: &str| note.contains("kubectl delete job nightly-1");
    assert!(plan.events.iter().any(|it| it.warning && told(&it.note)), "{:?}", plan.events);
}

/// The status has to stay small enough to be written.
#[test]
fn of_many_jobs_that_wait_in_vain_some_are_named_and_nobody_is_told_twice() {
    let mut world = stateful(&json!({}), "shop:v1");
    mend(&mut world, "StatefulSet", "db");
    mended_cron_job(&mut world);
    for job in 100..250 {
        older_job(&mut world, &format!("nightly-{job}"));
    }
    let plan = world.look();
    assert_eq!(
        (world.status.superseded.len(), world.status.superseded[0].revision.as_str()),
        (100, "uid-nightly-100")
    );
    assert_eq!(plan.events.len(), 101, "one of the deleted Pod");
    assert!(deletes(&plan, "db-0"), "whether it would be named or not");
    older_job(&mut world, "nightly-000");
    let before = world.status.superseded.clone();
    assert_eq!((world.look().events.len(), &world.status.superseded), (0, &before), "it pushes out none");
    world.pods.retain(|pod| pod.owner.as_ref().is_none_or(|job| job.name != "nightly-123"));
    let plan = world.look();
    assert_eq!((world.status.superseded.len(), plan.events.len()), (100, 1));
    assert_eq!(world.status.superseded[0].revision, "uid-nightly-000");
    assert!(!world.look().acts());
}

/// Its image isn't migrated, and nothing is about to.
#[test]
fn while_a_rollout_is_paused_its_waiting_pod_keeps_the_migrator_from_being_ready() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    mend(&mut world, "Deployment", "web");
    object(&mut world, "Deployment", "web")["spec"]["paused"] = json!(true);
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("Pending", vec!["Reconciling"]));
    let message = world.standing().1;
    for word in [world.pods[0].name.as_str(), "Deployment web", "shop:v1", "paused"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    // Its waiter is told as well.
    let [told] = &world.status.superseded[..] else { panic!("{:?}", world.status) };
    assert!(
        told.reason.contains("the migrations of shop:v1 wait for a Pod of the new one"),
        "{}",
        told.reason
    );
    assert_eq!(world.started.len(), 1);
    world.pod("web", "shop:v1").name = "of-the-newest".to_owned();
    object(&mut world, "ReplicaSet", &format!("web-{}", hash("shop:v1")))["spec"]["template"]["spec"] =
        object(&mut world, "Deployment", "web")["spec"]["template"]["spec"].clone();
    world.migrate();
    assert_eq!((world.started.len(), world.status.waiting, world.status.superseded.len()), (2, Some(0), 0));
}
