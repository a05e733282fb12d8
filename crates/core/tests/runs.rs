//! What runs, what is adopted, ended and given up, a test a sentence of the contract (§2, §5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[cfg(test)]
mod world;

use migrations_api::RunResult;
use migrations_core::plan::Effect;
use migrations_core::snapshot::{ClaimFacts, ContainerState, JobFacts, JobOutcome, PodFacts, PodRefused};
use rstest::rstest;
use serde_json::json;
use world::{World, serve, waiting};

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
