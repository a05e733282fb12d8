//! What runs, what is adopted and ended, a test a sentence of the contract (§2, §5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::RunResult;
use migrations_core::plan::Effect;
use migrations_core::snapshot::{ClaimFacts, ContainerState, JobFacts, JobOutcome, PodFacts, PodRefused};
use rstest::rstest;
use serde_json::json;
use world::{World, waiting};

#[test]
fn while_suspended_nothing_starts_and_what_runs_goes_on() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.spec.suspend = Some(true);
    world.roll_out("web", "shop:v2").settle();
    assert_eq!(world.reason(), "Running");
    world.run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("Suspended", vec!["Stalled"]));
    assert_eq!(world.started, ["shop:v1"]);
    world.spec.suspend = None;
    world.settle();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
}

#[test]
fn a_claimed_run_does_not_start_while_suspended() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    world.spec.suspend = Some(true);
    world.settle();
    assert!(world.started.is_empty());
    assert_eq!(world.reason(), "Suspended");
}

#[test]
fn suspended_with_nothing_due_is_ready() {
    let mut world = World::at_v1();
    world.spec.suspend = Some(true);
    world.settle();
    assert_eq!(
        (world.reason().as_str(), world.true_conditions()),
        ("Suspended", vec!["Ready", "MigrationsReady"])
    );
}

/// Its status was lost with its node's memory: it may have succeeded.
#[test]
fn a_migration_whose_end_nobody_saw_is_not_run_again() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(6);
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.run_ends(137, "");
    world.run_pods[0].containers[0].state = ContainerState::Lost { started: true };
    world.settle().wait(1000).settle();
    assert_eq!((world.reason().as_str(), world.started.len()), ("ResultUnknown", 1));
}

/// Evicted before its image was there, for example.
#[test]
fn a_run_that_its_kubelet_never_started_is_a_counted_attempt() {
    let mut world = World::new();
    world.spec.backoff_limit = Some(1);
    world.roll_out("web", "shop:v1").settle().run_ends(137, "");
    world.run_pods[0].containers[0].state = ContainerState::Lost { started: false };
    world.settle();
    assert_eq!(world.reason(), "BackOff");
    assert!(world.standing().1.contains("its container never started"), "{}", world.standing().1);
    world.wait(1000).settle();
    assert_eq!(world.started.len(), 2);
}

#[rstest]
#[case::pod(|world: &mut World| { world.foreign_run(); }, "kubectl describe pod foreign -n default", "its node is lost")]
#[case::job(|world: &mut World| {
    let mut job = world.jobs[0].clone();
    (job.name, job.uid) = ("shop-migrations".to_owned(), "uid-original".to_owned());
    (job.suspended, job.outcome) = (false, None);
    world.jobs.push(job);
}, "kubectl describe job shop-migrations -n default", "it is not to go on")]
fn an_earlier_run_that_is_not_finished_is_told_with_what_to_do(
    #[case] earlier: fn(&mut World),
    #[case] look_at: &str,
    #[case] when: &str,
) {
    let mut world = World::at_v1();
    earlier(&mut world);
    world.roll_out("web", "shop:v2").settle();
    let (reason, message) = world.standing();
    assert_eq!((reason.as_str(), world.started.len()), ("EarlierRunUnfinished", 1));
    assert!(message.contains(look_at) && message.contains(when), "{message}");
    assert!(message.contains("make sure that its migration has ended before you delete it"), "{message}");
}

#[test]
fn a_job_that_may_not_be_started_is_told_and_tried_again() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    world.look_and_crash_after(1);
    world.refused = Some("denied by policy".to_owned());
    let plan = world.look_and_crash_after(1);
    let (reason, message) = world.standing();
    assert_eq!((reason.as_str(), world.true_conditions()), ("JobRefused", vec!["Stalled"]));
    assert!(message.contains("denied by policy"), "{message}");
    assert!(matches!(&plan.effects[..], [Effect::StartJob { .. }]), "{:?}", plan.effects);
    assert!(!plan.events.iter().any(|event| event.reason.as_str() == "Running"), "{:?}", plan.events);
    world.refused = None;
    world.settle();
    assert_eq!((world.reason().as_str(), world.started.len()), ("Running", 1));
}

/// By hand, or by a queueing system: its Pod is killed, and may have done a part of its work.
#[test]
fn a_job_that_somebody_suspends_in_the_middle_is_not_started_again() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs[0].suspended = true;
    world.settle();
    world.run_ends(143, "").jobs[0].outcome = None;
    world.settle();
    assert_eq!(world.started.len(), 1);
    assert_eq!(world.reason(), "MigrationFailed");
}

/// A sidecar that another webhook put into the run.
#[test]
fn what_goes_on_beside_an_ended_migration_is_ended_and_the_next_run_is_not_held_up() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(0, "");
    let mut sidecar = waiting("mesh", "mesh:1");
    sidecar.state = ContainerState::Running(None);
    world.run_pods[0].containers.push(sidecar);
    world.run_pods[0].phase = "Running".to_owned();
    world.jobs[0].outcome = None;
    world.roll_out("web", "shop:v2");
    let plan = world.look();
    assert!(plan.effects.iter().any(|effect| matches!(effect, Effect::EndPod { .. })), "{:?}", plan.effects);
    world.settle();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
}

#[test]
fn nobody_elses_pod_is_ended() {
    let mut world = World::new();
    world.foreign_run();
    let mut sidecar = waiting("mesh", "mesh:1");
    sidecar.state = ContainerState::Running(None);
    world.run_pods[0].containers = vec![waiting("migrations", "x"), sidecar];
    let end = ContainerState::Terminated(migrations_core::snapshot::Termination {
        exit_code: 0,
        reason: String::new(),
        started: None,
        finished: None,
        message: String::new(),
    });
    world.run_pods[0].containers[0].state = end;
    world.settle();
    assert!(world.run_pods.iter().any(PodFacts::unfinished));
}

#[rstest]
#[case::none_kept(Some(0), Some(0), &[])]
#[case::default(None, None, &["good", "bad1", "bad3"])]
#[case::all(Some(9), Some(9), &["good", "bad1", "bad2", "bad3"])]
fn ended_jobs_are_kept_for_their_logs_as_the_limits_say(
    #[case] successful: Option<i32>,
    #[case] failed: Option<i32>,
    #[case] kept: &[&str],
) {
    let mut world = World::new();
    world.spec.successful_jobs_history_limit = successful;
    world.spec.failed_jobs_history_limit = failed;
    world.roll_out("web", "good").migrate();
    for image in ["bad1", "bad2", "bad3"] {
        world.roll_out("web", image).settle().run_starts().run_ends(1, "boom").settle();
    }
    let keys: Vec<_> = world.jobs.iter().map(|job| job.key.as_deref().unwrap()).collect();
    assert_eq!(keys, kept);
}

#[test]
fn output_that_may_hold_secrets_is_kept_back() {
    let mut world = World::new();
    world.policy.hide_output = true;
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(1, "password=hunter2");
    let plan = world.look();
    let whole = format!("{plan:?}{:?}", world.status);
    assert!(!whole.contains("hunter2") && whole.contains("exit code 1"), "{whole}");
}

/// A quota, a policy or a missing service account: the Job is there, and never gets a Pod.
#[test]
fn a_run_without_a_pod_says_why_in_the_job_controllers_words_with_the_field_that_helps() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    world.look();
    world.run_pods.clear();
    let job = world.jobs[0].uid.clone();
    let says = |job_uid: &str, pod: &str| {
        let message =
            format!("Error creating: pods \"{pod}\" is forbidden: exceeded quota: q, requested: cpu=1");
        Some(PodRefused { job_uid: job_uid.to_owned(), message })
    };
    let plan = world.look();
    assert!(plan.look_again.is_some_and(|pause| pause.as_secs() <= 3), "{:?}", plan.look_again);
    world.pod_refused = says("uid-of-another", "shop-1-a");
    world.look();
    assert!(!world.standing().1.contains("quota"), "{}", world.standing().1);
    world.pod_refused = says(&job, "shop-1-a");
    world.look();
    let (reason, message) = world.standing();
    assert_eq!(reason, "Pending");
    assert!(
        message.contains("forbidden: exceeded quota: q") && message.contains("spec.resources"),
        "{message}"
    );
    // The name that the Job controller draws for each attempt is no news.
    world.pod_refused = says(&job, "shop-1-b");
    assert!(!world.look().acts());
}

/// Its claim may have waited for another run for as long as that took.
#[test]
fn a_run_that_was_let_go_a_moment_ago_is_not_stuck() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    world.foreign_run().settle().wait(1000).settle();
    world.foreign_run_ends();
    world.look();
    assert_eq!(world.started, ["shop:v1"]);
    world.run_pods.clear();
    world.roll_out("worker", "shop:w1").look();
    assert!(!world.standing().1.contains("no Pod"), "{}", world.standing().1);
    assert_eq!(world.started, ["shop:v1"]);
}

/// A Job of the claimed name is this run's own only if all agrees; else it is made again where it is
/// ours and never started.
#[rstest]
#[case::all_agrees(|_: &mut JobFacts| {}, true)]
#[case::another_key(|job: &mut JobFacts| job.key = Some("shop:v0".to_owned()), false)]
#[case::another_attempt(|job: &mut JobFacts| job.attempt = Some("2".to_owned()), false)]
#[case::another_run(|job: &mut JobFacts| job.run_hash = Some("0".to_owned()), false)]
fn an_existing_job_is_adopted_only_if_all_agrees(#[case] change: fn(&mut JobFacts), #[case] adopted: bool) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    change(&mut world.jobs[0]);
    let uid = world.jobs[0].uid.clone();
    let plan = world.look();
    let bound = world.status.current.as_ref().and_then(|run| run.job_uid.clone());
    assert_eq!(bound.as_deref(), adopted.then_some(uid.as_str()));
    let deleted = |effect: &Effect| matches!(effect, Effect::DeleteJob { uid: it, .. } if *it == uid);
    assert_eq!(plan.effects.iter().any(deleted), !adopted);
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[rstest]
#[case::of_another_migrator(|job: &mut JobFacts| job.owner_uid = Some("uid-other".to_owned()))]
#[case::ours_and_started(|job: &mut JobFacts| { job.key = Some("shop:v0".to_owned()); job.suspended = false; })]
fn an_existing_job_that_is_not_to_be_made_again_is_left_alone(#[case] change: fn(&mut JobFacts)) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    change(&mut world.jobs[0]);
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("ForeignJob", vec!["Stalled"]));
    assert_eq!(world.jobs.len(), 1);
    assert!(world.started.is_empty());
}

#[test]
fn a_run_that_was_never_scheduled_has_failed() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle();
    world.run_pods[0].unschedulable = Some("0/3 nodes are available".to_owned());
    world.settle();
    assert!(world.standing().1.contains("0/3 nodes are available"), "{}", world.standing().1);
    world.run_pods[0].phase = "Failed".to_owned();
    world.jobs[0].outcome = Some(JobOutcome::Failed("Pod was evicted".to_owned()));
    world.settle();
    assert_eq!(world.status.history[0].result, RunResult::Failed);
    assert!(world.status.history[0].message.contains("0/3 nodes are available"));
}

#[test]
fn a_complete_job_is_a_success_although_nobody_saw_its_container() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle();
    world.run_pods.clear();
    world.jobs[0].outcome = Some(JobOutcome::Complete);
    world.settle();
    assert_eq!(world.done(), ["shop:v1"]);
}

/// The Pods of a workload share a volume that one of them alone may use.
#[test]
fn a_claim_that_is_in_use_needs_someone_and_the_other_keys_go_on() {
    let mut world = World::new();
    let modes = ClaimFacts { access_modes: vec!["ReadWriteOncePod".to_owned()] };
    world.claims.insert("data".to_owned(), modes);
    world.roll_out("web", "shop:v1").pods[0].claims.push("data".to_owned());
    for object in world.owners.values_mut().flatten() {
        object["spec"]["template"]["spec"]["volumes"] =
            json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }]);
    }
    world.settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("ClaimInUse", vec!["Stalled"]));
    world.roll_out("worker", "shop:w1").migrate();
    assert_eq!(world.done(), ["shop:w1"]);
    assert_eq!(world.reason(), "ClaimInUse");
}

#[test]
fn claims_that_became_empty_directories_are_shown_until_a_run_has_none() {
    let mut world = World::new();
    world.deploy_stateful("db", "shop:v1").stateful_pod("db", 0, "shop:v1");
    for object in world.owners.values_mut().flatten() {
        if let Some(spec) = object.pointer_mut("/spec/template/spec") {
            spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
        }
    }
    world.migrate();
    assert!(world.true_conditions().contains(&"ClaimsEmptied"), "{:?}", world.true_conditions());
    world.pods.clear();
    world.roll_out("web", "shop:v2").migrate();
    assert!(!world.true_conditions().contains(&"ClaimsEmptied"), "{:?}", world.true_conditions());
}
