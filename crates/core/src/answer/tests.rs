//! A row for each sentence that a waiter may be told.

use migrations_protocol::Container;
use rstest::rstest;
use serde_json::{Value, json};

use super::failed::OUTPUT;
use super::*;

const CLAIMED: &str = "2026-11-22T10:00:00.000000Z";

const UID: &str = "uid-of-the-pod";

/// The question of a Pod of `shop:2` with a proxy after the application.
fn question() -> Question {
    let container = |name: &str, image: &str| Container { name: name.to_owned(), image: image.to_owned() };
    Question {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: vec![container("app", "shop:2"), container("proxy", "proxy:1")],
        revision: Some("u1/5f6".to_owned()),
        follower: false,
        labels: [("app".to_owned(), "shop".to_owned())].into(),
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

/// As many as the status names.
fn many_superseded() -> Value {
    (0..MOST_SUPERSEDED)
        .map(|number| json!({"revision": format!("u{number}"), "reason": "gone on"}))
        .collect()
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
#[case::revision_that_is_the_pods_uid(json!({}), json!({"done": [tied("lead:1", UID)]}))]
#[case::template_tied_by_the_pods_uid(json!({"rerunOn": "Template"}), json!({"done": [tied("shop:2#a1", UID)]}))]
#[case::done_although_suspended(json!({"suspend": true}), json!({"done": [done("shop:2")]}))]
#[case::done_although_superseded(
    json!({}), json!({"done": [done("shop:2")], "superseded": [{"revision": "u1/5f6", "reason": "r"}]}))]
#[case::done_once_more(json!({}), json!({"done": [{"key": "shop:2", "image": "x", "how": "Succeeded", "rerun": true}]}))]
#[case::recorded_by_the_original(json!({}), json!({"lastSuccessfulMigration": "shop:2"}))]
fn released(#[case] spec: Value, #[case] status: Value) {
    let migrator = migrator(&spec, &status);
    let answer = answer(&question(), UID, Known::Migrator(&migrator));
    assert_eq!(answer.verdict, Verdict::Released, "{answer:?}");
}

#[rstest]
#[case::succeeded("Succeeded", "the migrations of shop:2 are done")]
#[case::baseline("Baseline", "shop:2 was in use before there were migrations to wait for")]
#[case::marked("Marked", "shop:2 was marked as migrated")]
fn a_release_says_how_it_came_to_be_done(#[case] how: &str, #[case] said: &str) {
    let done = json!({"done": [{"key": "shop:2", "image": "shop:2", "how": how}]});
    let answer = answer(&question(), UID, Known::Migrator(&migrator(&json!({}), &done)));
    assert_eq!(
        (answer.verdict, answer.reason.as_str(), answer.message.as_str()),
        (Verdict::Released, "Done", said)
    );
}

#[rstest]
#[case::another_value(json!({"selector": {"matchLabels": {"app": "web"}}}))]
#[case::another_label(json!({"selector": {"matchLabels": {"tier": "web"}}}))]
#[case::also_while_it_runs_nothing(json!({"selector": {"matchLabels": {"app": "web"}}, "suspend": true, "container": "x"}))]
fn a_pod_that_is_no_longer_selected_is_released_and_told_so(#[case] spec: Value) {
    let answer = answer(&question(), UID, Known::Migrator(&migrator(&spec, &json!({}))));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Released, "NotSelected"), "{answer:?}");
    assert!(answer.message.contains("doesn't select this Pod any more"), "{}", answer.message);
}

#[rstest]
#[case::labels_that_are_not_known(json!({"selector": {"matchLabels": {"app": "web"}}}), false)]
#[case::an_empty_selector(json!({"selector": {"matchLabels": null}}), true)]
#[case::a_selector_that_cannot_be_followed(
    json!({"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "Is"}]}}), true)]
fn nobody_is_released_by_what_cannot_be_compared(#[case] spec: Value, #[case] labelled: bool) {
    let mut question = question();
    if !labelled {
        question.labels.clear();
    }
    assert_eq!(answer(&question, UID, Known::Migrator(&migrator(&spec, &json!({})))).verdict, Verdict::Wait);
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
#[case::it_cannot_start(
    json!({}), json!({"current": current("shop:2", Some("u")), "conditions": [{"type": "Ready", "status": "False",
        "reason": "Pending", "message": "migration of shop:2 has not started in Job shop-x: exceeded quota: few",
        "lastTransitionTime": "2026-11-22T10:00:00Z"}]}),
    "Pending", "waits: migration of shop:2 has not started in Job shop-x: exceeded quota: few; `kubectl describe")]
#[case::running_again_after_a_failure(
    json!({}), json!({"current": current("shop:2", Some("u")), "history": [record("shop:2", "Failed", "")]}),
    "Running", "attempt 2")]
#[case::another_runs_first(
    json!({}), json!({"current": current("shop:1", Some("u"))}), "Pending", "come after those of shop:1 (running in Job shop-x")]
#[case::exhausted(
    json!({"backoffLimit": 2}), json!({"history": [record("shop:2", "Failed", "no such table\n")]}),
    "MigrationFailed", "failed in Job shop-y (attempt 3 of 3, at 2026-11-22T10:05:00Z); it is not tried again by itself; \
        roll out what mends it, or set the Migrator's annotation migrations.coderanger.net/run to a new value")]
#[case::exhausted_with_its_output(
    json!({"backoffLimit": 0}), json!({"history": [record("shop:2", "Failed", "Traceback\nno such table\n")]}),
    "MigrationFailed", "\nits last output:\nTraceback\nno such table")]
#[case::back_off(
    json!({}), json!({"history": [record("shop:2", "Failed", "boom")]}), "BackOff",
    "(attempt 3 of 7, at 2026-11-22T10:05:00Z); the next attempt is due at 2026-11-22T10:05:40Z;")]
#[case::back_off_with_its_output(
    json!({}), json!({"history": [record("shop:2", "Failed", "boom")]}), "BackOff", "\nits last output:\nboom")]
#[case::back_off_while_another_runs(
    json!({}), json!({"history": [record("shop:2", "Failed", "boom")], "current": current("shop:3", Some("u"))}),
    "BackOff", "the next attempt is due at")]
#[case::back_off_while_another_is_exhausted(
    json!({}), json!({"history": [record("shop:2", "Failed", "b")], "conditions": stalled_condition("MigrationFailed", "shop:3")}),
    "BackOff", "the next attempt is due at")]
#[case::failed_and_suspended(
    json!({"suspend": true}), json!({"history": [record("shop:2", "Failed", "boom")]}), "Suspended",
    "no attempt starts while spec.suspend is true")]
#[case::suspended(
    json!({"suspend": true}), json!({"conditions": stalled_condition("Suspended", "no start while spec.suspend is true")}),
    "Suspended", "can't start: no start while spec.suspend is true")]
#[case::no_source(
    json!({}), json!({"conditions": stalled_condition("NoSource", "no Pod matches")}), "NoSource", "can't start: no Pod matches")]
#[case::claim_in_use(
    json!({}), json!({"conditions": stalled_condition("ClaimInUse", "media is in use")}), "ClaimInUse", "media is in use")]
#[case::foreign_job(
    json!({}), json!({"conditions": stalled_condition("ForeignJob", "Job shop-x exists")}), "ForeignJob", "Job shop-x exists")]
#[case::spec_refused(
    json!({}), json!({"conditions": stalled_condition("InvalidSpec", "spec.image is empty")}), "InvalidSpec", "spec.image is empty")]
#[case::given_up(
    json!({}), json!({"history": [record("shop:2", "NotStarted", "given up")]}), "Pending", "which haven't started")]
#[case::an_earlier_run_is_unfinished(
    json!({}), json!({"conditions": [{"type": "Reconciling", "status": "True", "reason": "EarlierRunUnfinished",
        "message": "Pod shop-w is unfinished", "lastTransitionTime": CLAIMED}]}), "EarlierRunUnfinished", "Pod shop-w is unfinished")]
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
#[case::superseded_by_uid(
    json!({}), json!({"superseded": [{"revision": UID, "reason": "the controller has gone on"}]}),
    "Superseded", "waits in vain: the controller has gone on")]
#[case::superseded_although_its_run_failed(
    json!({}), json!({"superseded": [{"revision": "u1/5f6", "reason": "gone on"}], "history": [record("shop:2", "Failed", "")]}),
    "Superseded", "gone on")]
#[case::another_revision_is_superseded(
    json!({}), json!({"superseded": [{"revision": "u1/other", "reason": "gone on"}]}), "Pending", "which haven't started")]
#[case::more_are_superseded_than_are_listed(
    json!({}), json!({"superseded": many_superseded()}), "Pending",
    "may wait in vain, as Pods of more older revisions do than Migrator shop lists: if its workload has gone on from shop:2")]
#[case::more_are_superseded_than_are_listed_and_nothing_can_start(
    json!({}), json!({"superseded": many_superseded(), "conditions": stalled_condition("JobRefused", "quota")}), "JobRefused",
    "else it waits for the migrations of shop:2, which can't start: quota")]
#[case::more_are_superseded_than_are_listed_while_its_own_image_is_migrated(
    json!({}), json!({"superseded": many_superseded(), "current": current("shop:2", Some("u"))}), "Running",
    "waits for the migrations of shop:2, running")]
#[case::locked(
    json!({}), json!({"conditions": [{"type": "Reconciling", "status": "True", "reason": "Locked",
        "message": "waits for the lock db, held by Migrator a in namespace b", "lastTransitionTime": CLAIMED}]}),
    "Locked", "held by Migrator a in namespace b")]
#[case::container_absent(
    json!({"container": "web"}), json!({"done": [done("shop:2")]}),
    "ContainerNotFound", "spec.container \"web\" this Pod doesn't have (it has: app, proxy)")]
fn waits(#[case] spec: Value, #[case] status: Value, #[case] reason: &str, #[case] said: &str) {
    let migrator = migrator(&spec, &status);
    let answer = answer(&question(), UID, Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason), "{answer:?}");
    assert!(answer.message.contains(said), "{}", answer.message);
}

#[rstest]
#[case::absent(Known::Absent { since: Duration::ZERO }, "NoMigrator", "there is none in namespace default any more")]
#[case::gone_for_a_moment(Known::Absent { since: Duration::from_secs(59) }, "NoMigrator", "unless it is made again")]
#[case::unreadable(Known::Unreadable { error: "spec.selector is missing" }, "InvalidSpec", "can't be read: spec.selector is missing")]
fn waits_without_a_migrator(#[case] known: Known<'_>, #[case] reason: &str, #[case] said: &str) {
    let answer = answer(&question(), UID, known);
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason));
    assert!(answer.message.contains(said), "{}", answer.message);
}

#[test]
fn a_pod_without_containers_is_not_released() {
    let mut question = question();
    question.containers.clear();
    let migrator = migrator(&json!({}), &json!({"lastSuccessfulMigration": ""}));
    assert_eq!(answer(&question, UID, Known::Migrator(&migrator)).verdict, Verdict::Wait);
}

#[test]
fn the_version_changes_when_the_answer_does_and_only_then() {
    let ask =
        |status: Value| answer(&question(), UID, Known::Migrator(&migrator(&json!({}), &status))).version;
    let running = ask(json!({"current": current("shop:2", Some("u"))}));
    assert_eq!(running, ask(json!({"current": current("shop:2", Some("u")), "waiting": 7})));
    assert_ne!(running, ask(json!({"done": [done("shop:2")]})));
}

#[test]
fn of_a_long_output_the_end_is_told() {
    let output = format!("{}the cause", "ä".repeat(5000));
    let migrator = migrator(&json!({}), &json!({"history": [record("shop:2", "Failed", &output)]}));
    let message = answer(&question(), UID, Known::Migrator(&migrator)).message;
    assert!(message.ends_with("the cause") && message.len() < OUTPUT + 400, "{}", message.len());
}

#[test]
fn a_migrator_that_is_gone_for_a_minute_holds_nobody() {
    let answer = answer(&question(), UID, Known::Absent { since: GONE_FOR_GOOD });
    assert_eq!(answer.verdict, Verdict::Released);
}

#[test]
fn an_open_gate_holds_nobody() {
    let mut migrator = migrator(&json!({}), &json!({}));
    let open = (names::OPEN_ANNOTATION.to_owned(), "true".to_owned());
    migrator.metadata.annotations = Some([open].into());
    let answer = answer(&question(), UID, Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Released, "GateOpen"));
}

#[rstest]
#[case::its_own_image(json!({"done": [done("shop:2")]}))]
#[case::its_own_revision(json!({"done": [tied("lead:1", "u1/5f6")]}))]
#[case::its_own_uid(json!({"done": [tied("lead:1", UID)]}))]
fn a_follower_is_released_by_what_is_its_own(#[case] status: Value) {
    let question = Question { follower: true, ..question() };
    let migrator = migrator(&json!({}), &status);
    assert_eq!(answer(&question, UID, Known::Migrator(&migrator)).verdict, Verdict::Released);
}

#[rstest]
#[case::nothing_runs(json!({}), "Pending", "which haven't started")]
#[case::the_leaders_run(json!({"current": current("lead:1", Some("u"))}), "Running", "those of lead:1 run in Job shop-x")]
#[case::the_leaders_failed(
    json!({"history": [record("lead:1", "Failed", "boom")], "conditions": stalled_condition("MigrationFailed", "x")}),
    "MigrationFailed", "\nits last output:\nboom")]
#[case::the_leaders_are_tried_again(
    json!({"history": [record("lead:1", "Failed", "boom")], "conditions": [{"type": "Reconciling", "status": "True",
        "reason": "BackOff", "message": "later", "lastTransitionTime": CLAIMED}]}), "BackOff", "\nits last output:\nboom")]
#[case::suspended(json!({"conditions": stalled_condition("Suspended", "spec.suspend is true")}), "Suspended", "spec.suspend")]
#[case::superseded(json!({"superseded": [{"revision": "u1/5f6", "reason": "gone on"}]}), "Superseded", "gone on")]
#[case::nobody_leads(json!({"conditions": stalled_condition("NoSource", "no Pod matches")}), "NoSource", "no Pod matches")]
fn a_follower_is_told_of_those_it_follows(#[case] status: Value, #[case] reason: &str, #[case] said: &str) {
    let question = Question { follower: true, ..question() };
    let migrator = migrator(&json!({}), &status);
    let answer = answer(&question, UID, Known::Migrator(&migrator));
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Wait, reason), "{answer:?}");
    assert!(answer.message.contains(said), "{}", answer.message);
}
