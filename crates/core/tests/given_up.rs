//! Runs that are given up, or given back, before their container starts (contract §3, §5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::RunResult;
use migrations_core::snapshot::ContainerState;
use rstest::rstest;
use serde_json::json;
use world::{World, serve};

/// Its container may have started in the very moment its Job was deleted.
#[test]
fn a_run_that_started_while_it_was_given_up_counts() {
    let mut world = World::new();
    world.roll_out("web", "shop:typo").settle();
    world.run_pods[0].containers[0].state = ContainerState::Waiting("ImagePullBackOff".to_owned());
    world.settle();
    world.roll_out("web", "shop:v2");
    let pod = world.run_pods[0].clone();
    world.look();
    assert!(world.status.current.as_ref().is_some_and(|run| run.given_up.is_some()));
    // Deleted with its Job, and still there: its container has started.
    let mut pod = pod;
    pod.terminating = true;
    serve(&mut pod);
    world.run_pods.push(pod);
    world.settle();
    assert_eq!(world.reason(), "Running");
    assert_eq!(world.started, ["shop:typo"]);
    world.run_ends(0, "").settle();
    assert_eq!(world.status.history[0].result, RunResult::Succeeded);
    assert_eq!(world.started, ["shop:typo", "shop:v2"]);
}

/// The kubelet that ends its Pod gives the container an exit code all the same.
#[rstest]
#[case::never_started(false, RunResult::NotStarted, &["shop:typo", "shop:v2"])]
#[case::started_in_that_moment(true, RunResult::Unknown, &["shop:typo", "shop:v2"])]
fn a_given_up_run_whose_container_was_lost_has_not_failed(
    #[case] started: bool,
    #[case] result: RunResult,
    #[case] runs: &[&str],
) {
    let mut world = World::new();
    world.spec.backoff_limit = Some(6);
    world.roll_out("worker", "shop:typo").settle();
    world.run_pods[0].containers[0].state = ContainerState::Waiting("ImagePullBackOff".to_owned());
    world.settle();
    world.roll_out("web", "shop:v2");
    let mut pod = world.run_pods[0].clone();
    world.look();
    pod.containers[0].state = ContainerState::Lost { started };
    (pod.phase, pod.gone) = ("Failed".to_owned(), true);
    world.run_pods.push(pod);
    world.settle();
    assert_eq!(world.status.history[0].result, result);
    assert_eq!(world.started, runs);
    // Nothing of it is tried again while the other one can't start either.
    let stuck = ContainerState::Waiting("ImagePullBackOff".to_owned());
    world.run_pods.last_mut().unwrap().containers[0].state = stuck;
    world.wait(1000).settle();
    assert_eq!(world.started, runs);
}

/// Whatever held it back, it starts as spec and template are then.
#[rstest]
#[case::spec(|world: &mut World| world.spec.args = Some(vec!["--fake".to_owned()]))]
#[case::template(|world: &mut World| {
    for object in world.owners.values_mut().flatten() {
        object["spec"]["template"]["spec"]["serviceAccountName"] = json!("ddl");
    }
})]
fn a_bound_run_that_was_held_back_is_made_anew_of_a_changed_spec_or_template(
    #[case] change: fn(&mut World),
    #[values(true, false)] suspended: bool,
) {
    let mut world = World::new();
    world.spec.lock = Some("db".to_owned());
    let lease = world.policy.lease("default", "db");
    world.roll_out("web", "shop:v1").look();
    world.look();
    if suspended {
        world.spec.suspend = Some(true);
    } else {
        world.locks = vec![world::lock(&lease, "uid-other")];
    }
    world.settle();
    let held = world.status.current.clone().unwrap();
    assert!(held.job_uid.is_some() && world.started.is_empty(), "{held:?}");
    change(&mut world);
    world.settle();
    world.spec.suspend = None;
    world.locks.retain(|lock| lock.holder.uid == "uid-shop");
    world.settle();
    let current = world.status.current.clone().unwrap();
    assert_eq!(world.started, ["shop:v1"]);
    assert_ne!(current.run_hash, held.run_hash);
    let job = world.rendered[&current.job].to_string();
    assert!(job.contains("--fake") || job.contains("ddl"), "{job}");
    assert!(!world.jobs.iter().any(|job| job.name == held.job), "the old one is gone");
}

/// The controller ended between the status and the deletion.
#[test]
fn a_run_that_started_before_it_could_be_given_up_goes_on() {
    let mut world = World::new();
    world.roll_out("web", "shop:typo").settle();
    world.run_pods[0].containers[0].state = ContainerState::Waiting("ImagePullBackOff".to_owned());
    world.settle();
    world.roll_out("web", "shop:v2").look_and_crash_after(1);
    assert!(world.status.current.as_ref().is_some_and(|run| run.given_up.is_some()));
    world.run_starts().settle();
    assert_eq!(world.jobs.len(), 1);
    assert!(world.status.current.as_ref().is_some_and(|run| run.given_up.is_none()));
    world.run_ends(0, "").settle();
    assert_eq!(world.started, ["shop:typo", "shop:v2"]);
}

#[test]
fn a_run_that_cannot_start_and_nobody_needs_any_more_is_given_up() {
    let mut world = World::at_v1();
    world.roll_out("web", "shop:typo").settle();
    let stuck = ContainerState::Waiting("ImagePullBackOff".to_owned());
    world.run_pods.last_mut().unwrap().containers[0].state = stuck;
    world.settle();
    assert_eq!(world.reason(), "Pending");
    world.pods.retain(|pod| pod.containers[0].image == "shop:v1");
    world.deploy("web", "shop:v1").settle();
    assert_eq!(world.status.history[0].result, RunResult::NotStarted);
    assert_eq!(world.reason(), "UpToDate");
}

#[rstest]
#[case::no_node_fits(Some("0/3 nodes are available"))]
#[case::no_pod_for_a_quota(None)]
fn a_run_without_a_place_gives_way_to_another_key(#[case] unschedulable: Option<&str>) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle();
    match unschedulable {
        Some(why) => world.run_pods[0].unschedulable = Some(why.to_owned()),
        None => world.run_pods.clear(),
    }
    world.wait(60).settle();
    assert_eq!(world.started, ["shop:v1"]);
    world.roll_out("worker", "shop:w1").settle();
    assert_eq!(world.started, ["shop:v1", "shop:w1"]);
}

#[test]
fn a_job_that_is_refused_gives_way_to_another_key() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look_and_crash_after(1);
    world.refused = Some("exceeded quota".to_owned());
    world.look_and_crash_after(1);
    assert_eq!(world.reason(), "JobRefused");
    world.roll_out("worker", "shop:w1").look_and_crash_after(1);
    assert_eq!(world.status.history[0].result, RunResult::NotStarted);
    assert_eq!(world.status.current.as_ref().unwrap().key, "shop:w1");
    // Two that are refused don't take turns.
    world.look_and_crash_after(1);
    world.look_and_crash_after(1);
    assert_eq!(world.status.current.as_ref().unwrap().key, "shop:w1");
}

#[test]
fn a_needless_run_that_was_let_go_meanwhile_goes_on() {
    let mut world = World::new();
    world.roll_out("web", "shop:a");
    world.look();
    // Bound; about to let the Job go.
    world.look_and_be_held_up_after(1);
    world.pods.clear();
    world.roll_out("web", "shop:b");
    // Another one has found it needless, and is about to delete it.
    world.look_and_crash_after(1);
    world.go_on();
    world.settle();
    assert_eq!(world.jobs.len(), 1, "its container may start at any moment");
    world.run_starts().settle().run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:a"]);
}
