//! A row for each sentence that a waiter may be told.

use migrations_protocol::Container;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

const CLAIMED: &str = "2026-11-22T10:00:00.000000Z";

/// The question of a Pod of `shop:2` with a proxy after the application.
fn question() -> Question {
    let container = |name: &str, image: &str| Container { name: name.to_owned(), image: image.to_owned() };
    Question {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: vec![container("app", "shop:2"), container("proxy", "proxy:1")],
        revision: Some("u1/5f6".to_owned()),
        follower: false,
        seen: None,
    }
}

fn migrator(spec: &Value, status: &Value) -> Migrator {
    let mut object = json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}},
        "status": status,
    });
    json_patch::merge(&mut object, &json!({ "spec": spec }));
    serde_json::from_value(object).unwrap()
}

fn current(key: &str, uid: Option<&str>) -> Value {
    json!({"key": key, "image": key, "job": "shop-x", "jobUid": uid, "attempt": 2, "runHash": "h", "started": CLAIMED})
}

fn record(key: &str, result: &str, message: &str) -> Value {
    json!({
        "key": key, "image": key, "job": "shop-y", "attempt": 3, "attempts": 3, "runHash": "h", "started": CLAIMED,
        "finished": "2026-11-22T10:05:00.000000Z", "result": result, "message": message,
    })
}

fn tied(key: &str, revision: &str) -> Value {
    json!({"key": key, "image": key, "how": "Succeeded", "revisions": [revision]})
}

fn done(key: &str) -> Value {
    json!({"key": key, "image": key, "how": "Succeeded"})
}

fn stalled_condition(reason: &str, message: &str) -> Value {
    json!([{"type": "Stalled", "status": "True", "reason": reason, "message": message, "lastTransitionTime": CLAIMED}])
}

#[rstest]
#[case::done(json!({}), json!({"done": [done("shop:1"), done("shop:2")]}))]
#[case::done_of_the_named_container(json!({"container": "proxy"}), json!({"done": [done("proxy:1")]}))]
#[case::done_of_the_container_that_was_found(json!({}), json!({"container": "proxy", "done": [done("proxy:1")]}))]
#[case::found_container_that_this_pod_lacks(json!({}), json!({"container": "web", "done": [done("shop:2")]}))]
#[case::done_while_another_runs(json!({}), json!({"done": [done("shop:2")], "current": current("shop:3", Some("u"))}))]
#[case::done_although_it_failed_before(json!({}), json!({"done": [done("shop:2")], "history": [record("shop:2", "Failed", "")]}))]
#[case::spec_image_is_never_the_key(json!({"image": "tool:9"}), json!({"done": [done("shop:2")]}))]
#[case::revision_tied_to_a_done_key(json!({}), json!({"done": [tied("mirror/shop:2", "u1/5f6")]}))]
#[case::template_tied_to_a_done_key(json!({"rerunOn": "Template"}), json!({"done": [tied("shop:2#a1", "u1/5f6")]}))]
#[case::done_once_more(json!({}), json!({"done": [{"key": "shop:2", "image": "x", "how": "Succeeded", "rerun": true}]}))]
#[case::recorded_by_the_original(json!({}), json!({"lastSuccessfulMigration": "shop:2"}))]
fn released(#[case] spec: Value, #[case] status: Value) {
    let migrator = migrator(&spec, &status);
    let answer = answer(&question(), Known::Migrator(&migrator));
    assert_eq!(answer.verdict, Verdict::Released, "{answer:?}");
}

#[rstest]
#[case::never_looked_at(json!({}), Value::Null, "Pending", "hasn't looked at Migrator shop yet")]
#[case::nothing_done(json!({}), json!({}), "Pending", "which haven't started")]
#[case::other_image_done(json!({}), json!({"done": [done("shop:1")]}), "Pending", "the migrations of shop:2")]
#[case::last_success_is_no_proof_once_there_are_records(
    json!({}), json!({"lastSuccessfulMigration": "shop:2", "done": [done("shop:1")]}), "Pending", "which haven't started")]
#[case::last_success_of_another_image(json!({}), json!({"lastSuccessfulMigration": "shop:1"}), "Pending", "haven't")]
#[case::key_of_a_container_that_is_not_named(
    json!({"container": "app"}), json!({"done": [done("proxy:1")]}), "Pending", "the migrations of shop:2")]
#[case::claimed(json!({}), json!({"current": current("shop:2", None)}), "Pending", "about to start in Job shop-x (attempt 2)")]
#[case::running(
    json!({}), json!({"current": current("shop:2", Some("u"))}),
    "Running", "running in Job shop-x (attempt 2, since 2026-11-22T10:00:00Z); `kubectl logs -n default job/shop-x`")]
#[case::running_again_after_a_failure(
    json!({}), json!({"current": current("shop:2", Some("u")), "history": [record("shop:2", "Failed", "")]}),
    "Running", "attempt 2")]
#[case::another_runs_first(
    json!({}), json!({"current": current("shop:1", Some("u"))}), "Pending", "come after those of shop:1 (running in Job shop-x")]
#[case::failed(
    json!({}), json!({"history": [record("shop:2", "Failed", "no such table\n")]}),
    "MigrationFailed", "failed in Job shop-y (attempt 3, at 2026-11-22T10:05:00Z)")]
#[case::failed_with_its_output(
    json!({}), json!({"history": [record("shop:2", "Failed", "Traceback\nno such table\n")]}),
    "MigrationFailed", "\nits last output:\nTraceback\nno such table")]
#[case::newest_record_counts(
    json!({}), json!({"history": [record("shop:2", "Unknown", ""), record("shop:2", "Failed", "")]}),
    "ResultUnknown", "nobody saw how Job shop-y ended")]
#[case::failure_of_another_image(
    json!({}), json!({"history": [record("shop:1", "Failed", "boom")], "conditions": stalled_condition("MigrationFailed", "boom")}),
    "Pending", "the migrations of shop:2, which haven't started")]
#[case::unknown_with_why(
    json!({}), json!({"history": [record("shop:2", "Unknown", "node lost")]}), "ResultUnknown", "ended (node lost)")]
#[case::stalled(
    json!({}), json!({"conditions": stalled_condition("JobRefused", "exceeded quota")}), "JobRefused", "can't start: exceeded quota")]
#[case::another_revision_is_tied(
    json!({}), json!({"done": [tied("shop:1", "u1/other")]}), "Pending", "which haven't started")]
#[case::an_image_is_not_all_where_templates_count(
    json!({"rerunOn": "Template"}), json!({"done": [done("shop:2")]}), "Pending", "which haven't started")]
#[case::a_template_runs(
    json!({"rerunOn": "Template"}), json!({"current": current("shop:2#a1", Some("u"))}), "Running", "shop:2#a1")]
#[case::superseded(
    json!({}), json!({"superseded": [{"revision": "u1/5f6", "reason": "Deployment web has gone on"}]}),
    "Superseded", "waits in vain: Deployment web has gone on")]
#[case::locked(
    json!({}), json!({"conditions": [{"type": "Reconciling", "status": "True", "reason": "Locked",
        "message": "waits for the lock db, held by Migrator a in namespace b", "lastTransitionTime": CLAIMED}]}),
    "Locked", "held by Migrator a in namespace b")]
#[case::tried_again(
    json!({}), json!({"history": [record("shop:2", "Failed", "boom")], "conditions": [{"type": "Ready", "status": "False",
        "reason": "BackOff", "message": "", "lastTransitionTime": CLAIMED}]}), "BackOff", "and are tried again")]
#[case::container_absent(
    json!({"container": "web"}), json!({"done": [done("shop:2")]}),
    "ContainerNotFound", "spec.container \"web\" this Pod doesn't have (it has: app, proxy)")]
fn waits(#[case] spec: Value, #[case] status: Value, #[case] reason: &str, #[case] said: &str) {
    let migrator = migrator(&spec, &status);
    let answer = answer(&question(), Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason), "{answer:?}");
    assert!(answer.message.contains(said), "{}", answer.message);
}

#[rstest]
#[case::absent(Known::Absent { since: Duration::ZERO }, "NoMigrator", "there is none in namespace default any more")]
#[case::gone_for_a_moment(Known::Absent { since: Duration::from_secs(59) }, "NoMigrator", "unless it is made again")]
#[case::unreadable(Known::Unreadable { error: "spec.selector is missing" }, "InvalidSpec", "can't be read: spec.selector is missing")]
fn waits_without_a_migrator(#[case] known: Known<'_>, #[case] reason: &str, #[case] said: &str) {
    let answer = answer(&question(), known);
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason));
    assert!(answer.message.contains(said), "{}", answer.message);
}

#[test]
fn a_pod_without_containers_is_not_released() {
    let mut question = question();
    question.containers.clear();
    let migrator = migrator(&json!({}), &json!({"lastSuccessfulMigration": ""}));
    assert_eq!(answer(&question, Known::Migrator(&migrator)).verdict, Verdict::Wait);
}

#[test]
fn the_version_changes_when_the_answer_does_and_only_then() {
    let ask = |status: Value| answer(&question(), Known::Migrator(&migrator(&json!({}), &status))).version;
    let running = ask(json!({"current": current("shop:2", Some("u"))}));
    assert_eq!(running, ask(json!({"current": current("shop:2", Some("u")), "waiting": 7})));
    assert_ne!(running, ask(json!({"done": [done("shop:2")]})));
}

#[test]
fn of_a_long_output_the_end_is_told() {
    let output = format!("{}the cause", "ä".repeat(5000));
    let migrator = migrator(&json!({}), &json!({"history": [record("shop:2", "Failed", &output)]}));
    let message = answer(&question(), Known::Migrator(&migrator)).message;
    assert!(message.ends_with("the cause") && message.len() < OUTPUT + 400, "{}", message.len());
}

#[test]
fn a_migrator_that_is_gone_for_a_minute_holds_nobody() {
    let answer = answer(&question(), Known::Absent { since: GONE_FOR_GOOD });
    assert_eq!(answer.verdict, Verdict::Released);
}

#[test]
fn an_open_gate_holds_nobody() {
    let mut migrator = migrator(&json!({}), &json!({}));
    let open = (names::OPEN_ANNOTATION.to_owned(), "true".to_owned());
    migrator.metadata.annotations = Some([open].into());
    let answer = answer(&question(), Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Released, "GateOpen"));
}

#[rstest]
#[case::its_own_image(json!({"done": [done("shop:2")]}))]
#[case::its_own_revision(json!({"done": [tied("lead:1", "u1/5f6")]}))]
fn a_follower_is_released_by_what_is_its_own(#[case] status: Value) {
    let question = Question { follower: true, ..question() };
    let migrator = migrator(&json!({}), &status);
    assert_eq!(answer(&question, Known::Migrator(&migrator)).verdict, Verdict::Released);
}

#[rstest]
#[case::nothing_runs(json!({}), "Pending", "which haven't started")]
#[case::the_leaders_run(json!({"current": current("lead:1", Some("u"))}), "Running", "those of lead:1 run in Job shop-x")]
#[case::the_leaders_failed(
    json!({"history": [record("lead:1", "Failed", "boom")], "conditions": stalled_condition("MigrationFailed", "x")}),
    "MigrationFailed", "\nits last output:\nboom")]
#[case::nobody_leads(json!({"conditions": stalled_condition("NoSource", "no Pod matches")}), "NoSource", "no Pod matches")]
fn a_follower_is_told_of_those_it_follows(#[case] status: Value, #[case] reason: &str, #[case] said: &str) {
    let question = Question { follower: true, ..question() };
    let migrator = migrator(&json!({}), &status);
    let answer = answer(&question, Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason), "{answer:?}");
    assert!(answer.message.contains(said), "{}", answer.message);
}
