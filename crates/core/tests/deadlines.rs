//! Deployments whose `progressDeadlineSeconds` is about to pass while their Pods wait (contract §6).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use rstest::rstest;
use serde_json::json;
use world::World;

#[test]
fn a_progress_deadline_that_comes_near_is_told_once_before_it_passes() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    let since = jiff::Timestamp::from_second(world.clock).unwrap().to_string();
    let deployment = world.owners.iter_mut().find(|(owner, _)| owner.kind == "Deployment").unwrap().1;
    deployment.as_mut().unwrap()["status"] =
        json!({ "conditions": [{ "type": "Progressing", "status": "True", "lastUpdateTime": since }] });
    let near = |plan: migrations_core::plan::Plan| {
        plan.events.iter().filter(|event| event.reason.as_str() == "ProgressDeadlineNear").count()
    };
    let plan = world.look();
    assert!(plan.look_again.is_some());
    assert_eq!(near(plan), 0);
    assert_eq!(near(world.wait(545).look()), 1);
    assert_eq!(near(world.look()), 0);
}

/// The rollout of a Deployment came to its first step at that time, in seconds of the world's clock.
fn progressing(world: &mut World, deployment: &str, since: i64) {
    let since = jiff::Timestamp::from_second(since).unwrap().to_string();
    let mut owners = world.owners.iter_mut();
    let object = owners.find(|(owner, _)| owner.kind == "Deployment" && owner.name == deployment).unwrap().1;
    object.as_mut().unwrap()["status"] = json!({ "conditions": [{
        "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": since,
    }] });
}

/// Whose deadline was told.
fn told_deadlines(plan: &migrations_core::plan::Plan) -> Vec<&str> {
    let near = plan.events.iter().filter(|event| event.reason.as_str() == "ProgressDeadlineNear");
    near.filter_map(|event| Some(event.workload.as_ref()?.name.as_str())).collect()
}

#[rstest]
#[case::behind_another_run("Running", |_: &mut World| {})]
#[case::in_back_off("BackOff", |world: &mut World| {
    world.spec.backoff_limit = Some(6);
    world.run_starts().settle().run_ends(1, "boom").settle().run_starts().run_ends(1, "boom").settle();
    // Both in back-off, for minutes.
    for record in &mut world.status.history {
        record.attempts = 6;
    }
    world.settle();
})]
#[case::given_up_on("MigrationFailed", |world: &mut World| {
    world.run_starts().settle().run_ends(1, "boom").settle().run_starts().run_ends(1, "boom").settle();
})]
#[case::suspended("Suspended", |world: &mut World| {
    world.spec.suspend = Some(true);
    world.run_starts().settle().run_ends(0, "").settle();
})]
fn a_progress_deadline_of_every_deployment_that_waits_is_told_once_in_time(
    #[case] reason: &str,
    #[case] then: fn(&mut World),
) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").roll_out("worker", "shop:w1").settle();
    then(&mut world);
    let since = world.clock;
    progressing(&mut world, "worker", since);
    let plan = world.look();
    assert_eq!(world.reason(), reason);
    // Told by nobody, it is looked at in time.
    assert!(plan.look_again.is_some());
    assert!(told_deadlines(&plan).is_empty());
    world.clock = since + 545;
    for record in &mut world.status.history {
        record.finished.0 = jiff::Timestamp::from_second(since + 500).unwrap();
    }
    assert_eq!(told_deadlines(&world.look()), ["worker"]);
    assert!(told_deadlines(&world.look()).is_empty());
    progressing(&mut world, "worker", since + 1);
    assert!(told_deadlines(&world.look()).is_empty(), "of that revision it is told");
}

#[test]
fn a_progress_deadline_is_told_while_another_holds_the_lock_and_again_for_another_revision() {
    let mut world = World::new();
    world.spec.lock = Some("db".to_owned());
    let lease = world.policy.lease("default", "db");
    world.locks.push(world::lock(&lease, "uid-other"));
    world.roll_out("web", "shop:v1").settle();
    assert_eq!(world.reason(), "Locked");
    let since = world.clock;
    progressing(&mut world, "web", since);
    assert_eq!(told_deadlines(&world.wait(545).look()), ["web"]);
    world.roll_out("web", "shop:v2");
    progressing(&mut world, "web", since);
    assert_eq!(told_deadlines(&world.look()), ["web"]);
    assert!(told_deadlines(&world.look()).is_empty());
}

#[test]
fn a_progress_deadline_of_pods_that_start_is_nobodys_concern() {
    let mut world = World::at_v1();
    let since = world.clock;
    progressing(&mut world, "web", since);
    assert!(told_deadlines(&world.wait(595).look()).is_empty());
    world.roll_out("web", "shop:v2");
    progressing(&mut world, "web", since);
    world.requests.open = true;
    assert!(told_deadlines(&world.look()).is_empty());
}
