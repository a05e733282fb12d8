//! Locks between Migrators, a test a sentence of the contract (§2, §5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_core::plan::Effect;
use rstest::rstest;
use world::{World, lock};

fn locking() -> (World, String) {
    let mut world = World::new();
    world.spec.lock = Some("db".to_owned());
    let lease = world.policy.lease("default", "db");
    (world, lease)
}

#[test]
fn a_lock_is_taken_before_the_claim_and_given_back_after_the_run() {
    let (mut world, lease) = locking();
    let plan = world.roll_out("web", "shop:v1").look();
    assert!(matches!(&plan.effects[..], [Effect::TakeLock { lease: taken, found: None }] if *taken == lease));
    assert!(world.status.current.is_none());
    world.settle().run_starts().settle();
    assert_eq!(world.locks.len(), 1);
    world.run_ends(0, "").settle();
    assert!(world.locks.is_empty());
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn a_lock_that_another_holds_is_waited_for_and_told() {
    let (mut world, lease) = locking();
    world.locks.push(lock(&lease, "uid-other"));
    world.roll_out("web", "shop:v1").settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("Locked", vec!["Reconciling"]));
    assert!(world.standing().1.contains("Migrator other in namespace elsewhere"), "{}", world.standing().1);
    world.locks.clear();
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

/// Nothing else brings a look: no Pod waits, and the lease stays as it is when its holder is deleted.
#[test]
fn who_waits_for_a_lock_looks_again_by_itself() {
    let mut world = World::at_v1();
    world.spec.lock = Some("db".to_owned());
    let lease = world.policy.lease("default", "db");
    world.locks.push(lock(&lease, "uid-other"));
    world.requests.run = Some("again".to_owned());
    world.settle();
    assert_eq!(world.reason(), "Locked");
    let plan = world.look();
    assert!(plan.look_again.is_some_and(|pause| !pause.is_zero()), "{:?}", plan.look_again);
    world.locks[0].abandoned = true;
    world.settle();
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_lock_whose_holder_is_gone_is_revoked() {
    let (mut world, lease) = locking();
    world.locks.push(lock(&lease, "uid-other"));
    world.locks[0].abandoned = true;
    world.roll_out("web", "shop:v1").settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_lock_that_was_lost_after_the_claim_is_taken_again_before_the_start() {
    let (mut world, lease) = locking();
    world.roll_out("web", "shop:v1").look();
    world.look();
    assert!(world.status.current.is_some());
    world.locks = vec![lock(&lease, "uid-other")];
    world.settle();
    assert!(world.started.is_empty());
    world.locks.clear();
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_lock_is_given_back_during_back_off() {
    let (mut world, _) = locking();
    world.spec.backoff_limit = Some(6);
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    assert_eq!(world.reason(), "BackOff");
    assert!(world.locks.is_empty());
}

#[test]
fn a_lock_is_kept_while_a_pod_of_the_run_is_unfinished() {
    let (mut world, _) = locking();
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(0, "");
    world.run_pods[0].phase = "Running".to_owned();
    world.run_pods[0].terminating = true;
    world.settle();
    assert_eq!((world.done(), world.locks.len()), (vec!["shop:v1"], 1));
    world.run_pods.clear();
    world.settle();
    assert!(world.locks.is_empty());
}

#[test]
fn a_lock_that_the_spec_no_longer_names_is_given_back() {
    let (mut world, lease) = locking();
    world.spec.lock = None;
    world.locks.push(lock(&lease, "uid-shop"));
    world.settle();
    assert!(world.locks.is_empty());
}

#[rstest]
#[case::of_the_namespace("db", "other", false)]
#[case::of_all_namespaces("shared", "other", true)]
fn a_lock_is_shared_across_namespaces_only_as_the_administrator_lists_it(
    #[case] name: &str,
    #[case] elsewhere: &str,
    #[case] same: bool,
) {
    let mut world = World::new();
    world.policy.shared_locks.insert("shared".to_owned());
    let policy = &world.policy;
    assert_eq!(policy.lease("default", name) == policy.lease(elsewhere, name), same);
    assert_ne!(policy.lease("default", name), policy.lease("default", "another"));
}
