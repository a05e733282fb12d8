//! Attempts at a run, and runs that are asked for, a test a sentence of the contract (§2, §5, §6).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::RunResult;
use rstest::rstest;
use serde_json::json;
use world::World;

/// A shop whose next migration has failed `times` times.
fn failing(backoff_limit: i32, times: usize) -> World {
    let mut world = World::new();
    world.spec.backoff_limit = Some(backoff_limit);
    world.roll_out("web", "shop:v1");
    for _ in 0..times {
        world.settle().run_starts().settle().run_ends(1, "boom").settle().wait(400);
    }
    world
}

#[test]
fn a_failed_attempt_is_followed_by_another_after_a_pause() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(6);
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(1, "boom");
    let told = world.look();
    assert!(
        told.events.iter().any(|event| event.warning && event.note.contains("boom")),
        "{:?}",
        told.events
    );
    assert_eq!(world.reason(), "BackOff");
    assert_eq!(world.true_conditions(), ["Reconciling"]);
    assert!(world.standing().1.contains("attempt 1 of 7"), "{}", world.standing().1);
    assert!(told.look_again.is_some_and(|pause| pause.as_secs() <= 10), "{:?}", told.look_again);
    assert_eq!(world.started.len(), 1);
    world.wait(10).settle();
    assert_eq!(world.started.len(), 2);
    let jobs: Vec<_> = world.jobs.iter().map(|job| job.attempt.as_deref().unwrap()).collect();
    assert_eq!(jobs, ["1", "2"]);
    world.run_starts().run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!((world.status.history.len(), world.status.history[0].attempts), (1, 2));
    assert_eq!(world.status.history[0].result, RunResult::Succeeded);
}

#[test]
fn a_failed_run_is_tried_again_six_times_unless_the_spec_says_otherwise() {
    let mut world = World::new();
    world.spec.backoff_limit = None;
    world.roll_out("web", "shop:v1");
    for _ in 0..10 {
        world.wait(400).settle().run_starts().settle().run_ends(1, "boom").settle();
    }
    assert_eq!(world.started.len(), 7);
}

#[test]
fn used_up_attempts_need_someone() {
    let mut world = failing(2, 3);
    world.wait(100_000).settle();
    assert_eq!(world.started.len(), 3);
    assert_eq!(world.reason(), "MigrationFailed");
    assert_eq!(world.status.history.len(), 1);
    assert_eq!(world.status.history[0].attempts, 3);
}

#[rstest]
#[case::suspended_and_back(|world: &mut World| { world.spec.suspend = Some(true); world.settle(); world.spec.suspend = None; })]
#[case::other_limits(|world: &mut World| world.spec.failed_jobs_history_limit = Some(5))]
fn changes_that_do_not_touch_the_run_do_not_reset_its_attempts(#[case] change: fn(&mut World)) {
    let mut world = failing(2, 3);
    change(&mut world);
    world.wait(100_000).settle();
    assert_eq!(world.started.len(), 3);
}

#[test]
fn a_higher_limit_lets_it_be_tried_again() {
    let mut world = failing(0, 1);
    world.spec.backoff_limit = Some(1);
    world.settle();
    assert_eq!(world.started.len(), 2);
}

#[test]
fn while_one_key_is_in_back_off_the_others_go_on() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(6);
    world.roll_out("worker", "shop:w1").roll_out("web", "shop:v1");
    world.settle().run_starts().run_ends(1, "boom").settle();
    assert_eq!(world.started, ["shop:w1", "shop:v1"]);
    world.run_starts().run_ends(0, "").wait(10).settle();
    assert_eq!(world.started, ["shop:w1", "shop:v1", "shop:w1"]);
}

#[test]
fn a_requested_run_starts_the_count_afresh() {
    let mut world = failing(0, 1);
    world.requests.run = Some("again".to_owned());
    world.settle();
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.status.last_handled_run.as_deref(), Some("again"));
    world.run_starts().run_ends(1, "boom").settle();
    assert_eq!(world.reason(), "MigrationFailed");
    world.requests.run = None;
    world.wait(1000).settle();
    assert_eq!(world.started.len(), 2, "taking the annotation away asks for nothing");
}

#[test]
fn a_requested_run_repeats_what_is_done_once_and_holds_nobody() {
    let mut world = World::at_v1();
    world.roll_out("worker", "shop:w1").migrate().release().settle();
    world.requests.run = Some("restored".to_owned());
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(world.status.waiting, Some(0));
    for _ in 0..3 {
        world.run_starts().run_ends(0, "").settle();
    }
    let mut again = world.started[2..].to_vec();
    again.sort();
    assert_eq!(again, ["shop:v1", "shop:w1"]);
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn a_requested_run_waits_for_a_pod_to_clone() {
    let mut world = World::at_v1();
    world.pods.clear();
    world.requests.run = Some("again".to_owned());
    world.settle();
    assert_eq!(world.true_conditions(), ["Reconciling"]);
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(world.started.len(), 2);
}

#[test]
fn an_unknown_result_is_run_again_on_request_and_other_keys_go_on() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(6);
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs.clear();
    world.run_pods.clear();
    world.wait(1000).settle();
    assert_eq!((world.reason().as_str(), world.started.len()), ("ResultUnknown", 1));
    world.roll_out("worker", "shop:w1").settle();
    assert_eq!(world.started.len(), 2);
    world.run_starts().run_ends(0, "").settle();
    world.requests.run = Some("looked at it".to_owned());
    world.settle();
    assert_eq!(world.started, ["shop:v1", "shop:w1", "shop:v1"]);
}

#[test]
fn an_unknown_result_is_remembered_beyond_the_newest_runs() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs.clear();
    world.run_pods.clear();
    world.settle();
    for version in 0..12 {
        world.roll_out("worker", &format!("shop:w{version}")).migrate().release().settle();
    }
    let started = world.started.len();
    world.settle();
    assert_eq!((world.reason().as_str(), world.started.len()), ("ResultUnknown", started));
}

/// Rolls out so many images of another workload, each of which is migrated.
fn others_go_on(world: &mut World, images: usize) {
    for version in 0..images {
        let image = format!("shop:w{version}");
        world.roll_out("worker", &image).migrate().release().settle();
        world.pods.retain(|pod| pod.containers[0].image == image || pod.name.starts_with("web"));
    }
}

/// Else it would be run again by itself, six times more.
#[test]
fn used_up_attempts_are_remembered_while_a_pod_waits_for_them() {
    let mut world = failing(0, 1);
    others_go_on(&mut world, 12);
    world.wait(100_000).settle();
    assert_eq!((world.started.len(), world.reason().as_str()), (13, "MigrationFailed"));
    assert_eq!(world.status.history.len(), 11);
    world.pods.retain(|pod| !pod.name.starts_with("web"));
    world.settle();
    assert_eq!((world.status.history.len(), world.reason().as_str()), (10, "UpToDate"));
}

#[test]
fn used_up_attempts_at_what_was_asked_for_are_remembered() {
    let mut world = World::at_v1();
    world.requests.run = Some("again".to_owned());
    world.settle().run_starts().settle().run_ends(1, "boom").settle();
    others_go_on(&mut world, 12);
    world.wait(100_000).settle();
    assert_eq!((world.started.len(), world.reason().as_str()), (14, "MigrationFailed"));
}

/// Nobody knows what it did, so that nothing but someone who looked may repeat it.
#[test]
fn an_unknown_result_is_not_run_again_for_another_spec_or_template() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs.clear();
    world.run_pods.clear();
    world.settle();
    world.spec.args = Some(vec!["--fake".to_owned()]);
    world.settle();
    assert_eq!((world.reason().as_str(), world.started.len()), ("ResultUnknown", 1));
    world.requests.run = Some("looked at it".to_owned());
    world.settle();
    assert_eq!(world.started.len(), 2);
}

/// The name of a Job is used once: one that is kept for its log is never taken for a new attempt's.
#[test]
fn an_attempt_is_numbered_after_the_jobs_that_are_there() {
    let mut world = failing(0, 1);
    world.status.history.clear();
    world.settle();
    let numbers: Vec<_> = world.jobs.iter().map(|job| job.attempt.as_deref().unwrap()).collect();
    assert_eq!(numbers, ["1", "2"]);
}

#[test]
fn a_changed_template_starts_the_count_afresh() {
    let mut world = failing(0, 1);
    for object in world.owners.values_mut().flatten() {
        object["spec"]["template"]["spec"]["serviceAccountName"] = json!("shop");
    }
    world.settle();
    assert_eq!(world.started.len(), 2);
}
