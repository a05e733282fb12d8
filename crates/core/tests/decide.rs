//! What the controller decides, a test a sentence of the contract (§3, §5, §6).

#[cfg(test)]
mod world;

use migrations_api::{How, RunResult};
use migrations_core::plan::Effect;
use migrations_core::snapshot::{ContainerState, Gate, JobFacts};
use rstest::rstest;
use serde_json::json;
use world::{World, run_pod, serve, waiting};

#[test]
fn a_first_install_migrates_once_and_then_rests() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(world.reason(), "Running");
    assert_eq!(world.status.waiting, Some(2));
    world.run_starts().settle().run_ends(0, "").settle().release().settle();
    assert_eq!(world.started, ["shop:v1"]);
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!(world.status.last_successful_migration.as_deref(), Some("shop:v1"));
    assert_eq!(world.reason(), "UpToDate");
    assert_eq!(world.status.waiting, Some(0));
}

#[test]
fn a_run_is_claimed_created_bound_and_started_in_that_order() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    let claim = world.look();
    assert!(claim.status.unwrap().current.unwrap().job_uid.is_none());
    assert!(matches!(&claim.effects[..], [Effect::CreateJob(job)] if job["spec"]["suspend"] == json!(true)));
    let bind = world.look();
    let bound = bind.status.unwrap().current.unwrap().job_uid.unwrap();
    assert!(matches!(&bind.effects[..], [Effect::StartJob { uid, .. }] if *uid == bound));
}

#[test]
fn a_run_says_since_when_and_a_record_from_when_to_when() {
    let mut world = World::new();
    let before = world.roll_out("web", "shop:v1").clock;
    world.look();
    let claimed = world.status.current.as_ref().unwrap().started.clone();
    assert_eq!(claimed.0.as_second(), before + 1);
    world.settle().run_starts().settle().run_ends(0, "").settle();
    let record = &world.status.history[0];
    assert!(record.started.0 > claimed.0 && record.finished.0 >= record.started.0, "{record:?}");
}

#[test]
fn an_upgrade_runs_the_new_image_and_keeps_the_old_one_done() {
    let mut world = World::at_v1();
    world.roll_out("web", "shop:v2").migrate();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
    assert_eq!(world.done(), ["shop:v2", "shop:v1"]);
}

#[test]
fn a_rollback_runs_nothing() {
    let mut world = World::at_v1();
    world.roll_out("web", "shop:v2").migrate().release().settle();
    world.roll_out("web", "shop:v1").settle();
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn scale_to_zero_stays_ready() {
    let mut world = World::at_v1();
    world.pods.clear();
    world.settle();
    assert_eq!(world.true_conditions(), ["Ready", "MigrationsReady"]);
    assert_eq!(world.reason(), "Idle");
}

#[test]
fn a_failure_is_told_with_the_last_output_and_not_repeated() {
    let mut world = World::at_v1();
    world.roll_out("web", "shop:v2").settle().run_starts().run_ends(1, "Traceback\nValueError: no").settle();
    let (reason, message) = world.standing();
    assert_eq!(reason, "MigrationFailed");
    assert!(message.contains("shop:v2") && message.contains("ValueError: no"), "{message}");
    assert_eq!(world.true_conditions(), ["Stalled"]);
    assert_eq!(world.started, ["shop:v1", "shop:v2"]);
    assert_eq!(world.status.history[0].result, RunResult::Failed);
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn a_failure_is_told_in_one_event_with_its_workload() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(1, "boom");
    let plan = world.look();
    assert_eq!(plan.events.len(), 1);
    assert!(plan.events[0].warning && plan.events[0].note.contains("boom"));
    assert_eq!(plan.events[0].workload.as_ref().unwrap().name, "web");
    assert!(world.look().events.is_empty());
}

#[test]
fn after_a_failure_a_new_image_is_run() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    world.roll_out("web", "shop:v2").migrate();
    assert_eq!(world.done(), ["shop:v2"]);
}

#[test]
fn after_a_failure_a_changed_spec_starts_a_fresh_attempt() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    world.spec.args = Some(vec!["--fake".to_owned()]);
    world.migrate();
    assert_eq!(world.started, ["shop:v1", "shop:v1"]);
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn going_back_to_a_spec_that_failed_is_another_attempt_of_another_name() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(1, "boom").settle();
    world.spec.args = Some(vec!["--fake".to_owned()]);
    world.settle().run_starts().run_ends(1, "boom").settle();
    world.spec.args = None;
    world.settle();
    assert_eq!(world.status.current.as_ref().unwrap().attempt, 2);
    assert_eq!(world.started.len(), 3);
}

#[test]
fn done_images_start_without_a_run_whatever_revision_they_are_of() {
    let mut world = World::at_v1();
    world.roll_out("web", "shop:v2");
    world.pod("web", "shop:v1");
    world.settle();
    assert_eq!(world.status.waiting, Some(1));
}

#[test]
fn a_running_migration_is_not_ended_and_of_two_that_follow_only_the_last_runs() {
    let mut world = World::new();
    world.roll_out("web", "shop:a").settle().run_starts().settle();
    world.roll_out("web", "shop:b").settle();
    world.roll_out("web", "shop:c").settle();
    assert_eq!(world.started, ["shop:a"]);
    assert_eq!(world.jobs.len(), 1);
    world.run_ends(0, "").settle().run_starts().run_ends(0, "").settle();
    assert_eq!(world.started, ["shop:a", "shop:c"]);
}

#[test]
fn two_workloads_with_different_images_are_each_migrated_once_the_oldest_first() {
    let mut world = World::new();
    world.roll_out("worker", "shop:w1").roll_out("web", "shop:v1").migrate().migrate();
    assert_eq!(world.started, ["shop:w1", "shop:v1"]);
    world.release().settle();
    assert_eq!(world.reason(), "UpToDate");
}

#[test]
fn while_one_key_has_failed_the_others_go_on() {
    let mut world = World::new();
    world.roll_out("worker", "shop:w1").roll_out("web", "shop:v1");
    world.settle().run_starts().run_ends(1, "boom").settle().run_starts().run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!(world.reason(), "MigrationFailed");
}

#[test]
fn a_staged_template_without_a_pod_is_not_due() {
    let mut world = World::at_v1();
    world.deploy("web", "shop:v2").settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn an_older_revision_that_serves_is_a_baseline() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    serve(world.pod("web", "shop:v1"));
    world.roll_out("web", "shop:v2").settle();
    assert_eq!(world.status.done[0].key, "shop:v1");
    assert_eq!(world.status.done[0].how, How::Baseline);
    assert_eq!(world.started, ["shop:v2"]);
}

/// Else those that wait for that run would start in the middle of it.
#[test]
fn what_serves_is_no_baseline_while_its_own_run_is_under_way() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    let ungated = world.pod("web", "shop:v1");
    ungated.init_containers.clear();
    ungated.admitted = None;
    serve(ungated);
    world.settle().run_starts().settle();
    world.roll_out("web", "shop:v2").settle();
    assert_eq!((world.done().len(), world.status.waiting), (0, Some(2)));
    world.run_ends(0, "").settle();
    assert_eq!((world.status.done[0].key.as_str(), world.status.done[0].how), ("shop:v1", How::Succeeded));
}

#[test]
fn a_restart_of_pods_older_than_the_gate_is_no_baseline_of_their_own_image() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    serve(world.pod("web", "shop:v1"));
    world.deploy("worker", "shop:v1");
    world.pod("worker", "shop:v1");
    let stale = world.owners.keys().find(|owner| owner.kind == "Deployment" && owner.name == "web").cloned();
    let restarted = world.owners.get_mut(&stale.unwrap()).unwrap().as_mut().unwrap();
    restarted["spec"]["template"]["metadata"]["annotations"] = json!({ "restartedAt": "now" });
    world.settle();
    assert!(world.done().is_empty());
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn pods_older_than_the_gate_are_counted_and_cause_a_run() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    let pod = world.pod("web", "shop:v1");
    pod.init_containers.clear();
    serve(pod);
    world.settle();
    assert_eq!(world.status.ungated, Some(1));
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn the_originals_status_keeps_its_image_done() {
    let mut world = World::new();
    world.status.last_successful_migration = Some("shop:v1".to_owned());
    world.roll_out("web", "shop:v1").settle();
    assert!(world.started.is_empty());
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn an_image_of_the_run_is_never_what_pods_wait_for() {
    let mut world = World::new();
    world.spec.image = Some("shop-ddl:1".to_owned());
    world.roll_out("web", "shop:v1").migrate();
    assert_eq!(world.done(), ["shop:v1"]);
    let job = world.rendered.values().next().unwrap();
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["image"], "shop-ddl:1");
}

#[test]
fn pods_of_a_run_never_lead_another() {
    let mut world = World::new();
    let pod = world.pod("web", "shop:v1");
    pod.no_wait = true;
    pod.labels.insert("migrations".to_owned(), "shop".to_owned());
    world.settle();
    assert!(world.started.is_empty());
    assert_eq!(world.reason(), "Idle");
}

#[test]
fn terminating_and_finished_pods_lead_nothing() {
    let mut world = World::new();
    world.deploy("web", "shop:v1");
    world.pod("web", "shop:v1").terminating = true;
    world.pod("web", "shop:v1").phase = "Failed".to_owned();
    world.settle();
    assert!(world.started.is_empty());
}

#[test]
fn a_foreign_job_of_the_runs_name_is_left_alone() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look_and_crash_after(1);
    let name = world.status.current.as_ref().unwrap().job.clone();
    world.jobs.push(JobFacts {
        uid: "uid-foreign".to_owned(),
        resource_version: "1".to_owned(),
        owner_uid: None,
        run_of: None,
        key: None,
        attempt: None,
        run_hash: None,
        suspended: false,
        terminating: false,
        outcome: None,
        created: None,
        name: name.clone(),
    });
    world.settle();
    let (reason, message) = world.standing();
    assert_eq!(reason, "ForeignJob");
    assert!(message.contains(&format!("kubectl delete job {name}")), "{message}");
    assert_eq!(world.jobs.len(), 1);
}

#[test]
fn nothing_starts_beside_an_unfinished_pod_of_an_earlier_run() {
    let mut world = World::new();
    world.foreign_run().roll_out("web", "shop:v1").settle();
    assert!(world.started.is_empty());
    assert_eq!(world.reason(), "EarlierRunUnfinished");
    world.foreign_run_ends().settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_claimed_run_too_waits_for_an_earlier_runs_pod_that_shows_late() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look();
    world.foreign_run().settle();
    assert!(world.started.is_empty());
    world.foreign_run_ends().settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_bound_job_that_vanishes_is_unknown_and_never_silently_run_again() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs.clear();
    world.run_pods.clear();
    world.settle();
    assert_eq!(world.reason(), "ResultUnknown");
    assert_eq!(world.status.history[0].result, RunResult::Unknown);
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_deleted_job_whose_pod_still_ends_well_counts() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.jobs.clear();
    world.settle();
    assert_eq!(world.reason(), "Running");
    world.run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn success_is_recorded_as_soon_as_the_container_has_ended() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(0, "");
    world.jobs[0].outcome = None;
    world.run_pods[0].phase = "Running".to_owned();
    world.settle();
    assert_eq!(world.done(), ["shop:v1"]);
}

/// Its kubelet says a moment later that the Pod has ended, too.
#[test]
fn a_run_that_succeeded_is_not_made_to_look_failed() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle().run_ends(0, "");
    world.jobs[0].outcome = None;
    world.run_pods[0].phase = "Running".to_owned();
    world.settle();
    assert_eq!(world.run_pods[0].phase, "Running");
}

#[test]
fn a_failed_init_container_is_a_counted_attempt() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle();
    let mut init = waiting("proxy", "proxy");
    init.state = ContainerState::Terminated(migrations_core::snapshot::Termination {
        exit_code: 3,
        reason: String::new(),
        started: None,
        finished: None,
        message: "no route".to_owned(),
    });
    world.run_ends(1, "").run_pods[0].init_containers.push(init);
    world.run_pods[0].containers[0] = waiting("migrations", "shop:v1");
    world.settle();
    let (reason, message) = world.standing();
    assert_eq!(reason, "MigrationFailed");
    assert!(
        message.contains("init container proxy exited with 3") && message.contains("no route"),
        "{message}"
    );
}

#[test]
fn a_run_that_cannot_start_says_why_and_gives_way_to_a_newer_image() {
    let mut world = World::new();
    world.roll_out("web", "shop:typo").settle();
    world.run_pods[0].containers[0].state = ContainerState::Waiting("ImagePullBackOff: not found".to_owned());
    world.settle();
    assert!(world.standing().1.contains("ImagePullBackOff: not found"));
    world.roll_out("web", "shop:v2").settle();
    assert_eq!(world.status.history[0].result, RunResult::NotStarted);
    assert_eq!(world.started, ["shop:typo", "shop:v2"]);
}

#[test]
fn two_runs_that_cannot_start_do_not_take_turns() {
    let mut world = World::new();
    world.roll_out("worker", "shop:typo").roll_out("web", "shop:slip");
    for _ in 0..6 {
        world.settle();
        let stuck = ContainerState::Waiting("ImagePullBackOff".to_owned());
        world.run_pods.iter_mut().for_each(|pod| pod.containers[0].state = stuck.clone());
    }
    assert_eq!(world.started, ["shop:typo", "shop:slip"]);
}

#[test]
fn a_started_job_without_a_pod_says_where_to_look() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_pods.clear();
    world.clock += 60;
    world.settle();
    assert!(world.standing().1.contains("kubectl describe job"), "{}", world.standing().1);
}

#[test]
fn a_named_container_that_is_absent_is_told_with_those_that_are_there() {
    let mut world = World::new();
    world.spec.container = Some("migrator".to_owned());
    world.roll_out("web", "shop:v1").settle();
    let (reason, message) = world.standing();
    assert_eq!(reason, "ContainerNotFound");
    assert!(message.contains("\"migrator\"") && message.contains("app"), "{message}");
    assert_eq!(world.status.waiting, Some(1));
}

#[test]
fn without_a_pod_of_the_template_selector_there_is_no_source() {
    let mut world = World::new();
    world.spec.template_selector =
        Some(serde_json::from_value(json!({ "matchLabels": { "role": "leader" } })).unwrap());
    world.roll_out("web", "shop:v1").settle();
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("NoSource", vec!["Stalled"]));
    world.pod("web", "shop:v1").labels.insert("role".to_owned(), "leader".to_owned());
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
}

#[test]
fn a_refused_job_is_told_in_the_api_servers_words() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").look_and_crash_after(1);
    world.refused = Some("exceeded quota".to_owned());
    let plan = world.look_and_crash_after(1);
    assert!(matches!(&plan.effects[..], [Effect::CreateJob(_)]));
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("JobRefused", vec!["Stalled"]));
    let message = world.standing().1;
    assert!(message.contains("exceeded quota") && message.contains("ResourceQuota"), "{message}");
}

#[test]
fn a_refused_spec_starts_nothing_but_loses_no_result() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().settle();
    world.spec.selector = serde_json::from_value(json!({})).unwrap();
    world.settle();
    assert_eq!(world.reason(), "Running");
    world.run_ends(0, "").settle();
    assert_eq!(world.done(), ["shop:v1"]);
    assert_eq!((world.reason().as_str(), world.true_conditions()), ("InvalidSpec", vec!["Stalled"]));
}

#[rstest]
#[case::excluded(Gate::Excluded, "NamespaceExcluded", &["Stalled"])]
#[case::pending(Gate::Pending("soon".to_owned()), "GatePending", &["Reconciling"])]
#[case::unreachable(Gate::Unreachable("open port 443".to_owned()), "WebhookUnreachable", &["Reconciling"])]
#[case::refused(Gate::Refused("Invalid value".to_owned()), "EntryRefused", &["Stalled"])]
fn nobody_is_ready_before_the_gate_is(#[case] gate: Gate, #[case] reason: &str, #[case] conditions: &[&str]) {
    let mut world = World::new();
    world.gate = gate;
    world.settle();
    assert_eq!(world.reason(), reason);
    assert_eq!(world.true_conditions(), conditions);
}

#[test]
fn of_ended_jobs_the_newest_success_and_the_first_and_last_failure_are_kept() {
    let mut world = World::new();
    for version in 1..=3 {
        world.roll_out("web", &format!("shop:good{version}")).migrate();
    }
    for version in 1..=4 {
        world
            .roll_out("web", &format!("shop:bad{version}"))
            .settle()
            .run_starts()
            .run_ends(1, "boom")
            .settle();
    }
    let keys: Vec<_> = world.jobs.iter().map(|job| job.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["shop:good3", "shop:bad1", "shop:bad4"]);
    assert_eq!(world.status.history.len(), 7);
}

/// A crash after any step of any plan: the next controller goes on, nothing runs twice.
#[rstest]
fn a_crash_between_any_two_effects_changes_nothing(
    #[values(0, 1, 2)] steps: usize,
    #[values(0, 1, 2, 3)] at: usize,
) {
    let mut world = World::new();
    world.roll_out("web", "shop:v1");
    for look in 0..12 {
        if look == at {
            world.look_and_crash_after(steps);
        } else {
            world.look();
        }
        if look == 6 {
            world.run_starts().run_ends(0, "");
        }
    }
    world.settle();
    assert_eq!(world.started, ["shop:v1"]);
    assert_eq!(world.done(), ["shop:v1"]);
}

#[test]
fn a_second_pod_of_a_bound_job_does_not_hide_the_first_ones_success() {
    let mut world = World::new();
    world.roll_out("web", "shop:v1").settle().run_starts().run_ends(0, "");
    let second = run_pod(&world.jobs[0]);
    world.run_pods.push(second);
    world.settle();
    assert_eq!(world.done(), ["shop:v1"]);
}
