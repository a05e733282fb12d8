//! Plans against an API server that says no: what is an outcome, what is an error, and what is left
//! undone (contract §5).

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use http::Method;
use migrations_api::{Migrator, MigratorStatus};
use migrations_controller::execute::{Error, Executor, Outcome};
use migrations_controller::locks::Locks;
use migrations_controller::metrics::Metrics;
use migrations_core::plan::{Effect, LeaseVersion, Plan};
use migrations_process::telemetry::causes;
use migrations_testkit::builders::{Object, migrator};
use migrations_testkit::recording::{Fault, RecordingServer};
use prometheus_client::encoding::text::encode;
use rstest::rstest;
use serde_json::json;

const MIGRATOR: &str = "/apis/migrations.coderanger.net/v1beta1/namespaces/shop/migrators/shop/status";
const JOBS: &str = "/apis/batch/v1/namespaces/shop/jobs";

fn shop() -> Object<Migrator> {
    migrator("shop").namespace("shop").uid("uid-shop").selecting("app", "shop")
}

fn create() -> Effect {
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "shop-1", "namespace": "shop" },
        "spec": { "suspend": true, "template": { "spec": { "fieldOfTheFuture": 1 } } },
    });
    Effect::CreateJob(Box::new(job))
}

/// A run that succeeded is recorded.
fn record() -> Plan {
    let time = "2026-06-01T00:00:00.000000Z";
    let record = json!({
        "key": "a", "image": "a", "job": "shop-1", "attempt": 1, "runHash": "h", "result": "Succeeded",
        "started": time, "finished": time,
    });
    let status = serde_json::from_value(json!({ "history": [record] })).unwrap();
    Plan { status: Some(Box::new(status)), ..Plan::default() }
}

fn claim() -> Plan {
    Plan {
        status: Some(Box::new(MigratorStatus { waiting: Some(1), ..MigratorStatus::default() })),
        effects: vec![create()],
        ..Plan::default()
    }
}

fn server() -> RecordingServer {
    RecordingServer::new().holding("migrators", &shop())
}

fn executor(server: &RecordingServer) -> Executor {
    Executor {
        client: server.client(),
        locks: Locks::new(server.client(), "operator"),
        metrics: Metrics::default(),
    }
}

/// The Migrator as it is read from there.
fn read(server: &RecordingServer) -> Migrator {
    let object = server.object(MIGRATOR.trim_end_matches("/status")).unwrap();
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn the_status_comes_first_with_the_version_it_was_read_at() {
    let server = server();
    let shop = read(&server);
    let outcome = executor(&server).execute(&shop, &claim()).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(server.writes(), [format!("PUT {MIGRATOR}"), format!("POST {JOBS}")]);
    let (written, read) = (&server.requests()[0].body["metadata"], shop.metadata);
    assert_eq!(written["uid"], json!(read.uid));
    assert_eq!(written["resourceVersion"], json!(read.resource_version));
}

#[tokio::test]
async fn a_field_that_this_build_does_not_know_reaches_the_job() {
    let server = server();
    executor(&server).execute(&read(&server), &claim()).await.unwrap();
    let job = &server.requests()[1].body;
    assert_eq!(job.pointer("/spec/template/spec/fieldOfTheFuture"), Some(&json!(1)));
}

#[rstest]
#[case::somebody_else_wrote(409)]
#[case::it_is_gone(404)]
#[tokio::test]
async fn after_a_status_that_was_not_written_nothing_follows(#[case] code: u16) {
    let server = server();
    server.fail(Fault::refuse(Method::PUT, MIGRATOR, code));
    let outcome = executor(&server).execute(&read(&server), &claim()).await.unwrap();
    assert_eq!(outcome, Outcome::Outdated);
    assert_eq!(server.writes(), [format!("PUT {MIGRATOR}")]);
}

#[tokio::test]
async fn a_run_is_counted_where_its_record_is_written() {
    let server = server();
    let (executor, shop) = (executor(&server), read(&server));
    server.fail(Fault::refuse(Method::PUT, MIGRATOR, 409));
    for counted in [0, 1] {
        executor.execute(&shop, &record()).await.unwrap();
        let mut text = String::new();
        encode(&mut text, &executor.metrics.registry()).unwrap();
        let line = format!("\nmigrations_runs_total{{result=\"Succeeded\"}} {counted}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[rstest]
#[case::exists_already(409, Some(Outcome::Interrupted))]
#[case::refused_by_quota(403, None)]
#[case::refused_as_invalid(422, None)]
#[tokio::test]
async fn a_job_that_is_not_created_is_an_outcome(#[case] code: u16, #[case] expected: Option<Outcome>) {
    let server = server();
    server.fail(Fault::refuse(Method::POST, JOBS, code));
    let outcome = executor(&server).execute(&read(&server), &claim()).await.unwrap();
    match expected {
        Some(expected) => assert_eq!(outcome, expected),
        None => assert!(matches!(outcome, Outcome::JobRefused(_)), "{outcome:?}"),
    }
}

/// Refused by an admission webhook that can't be reached, or with a code that it chose.
#[rstest]
#[case::out_of_reach(500, "Internal error occurred: failed calling webhook \"a\": connection refused")]
#[case::its_own_code(418, "admission webhook \"a\" denied the request: no")]
#[case::its_own_fault(500, "admission webhook \"a\" denied the request: no")]
#[case::namespace_gone(404, "namespaces \"shop\" not found")]
#[tokio::test]
async fn a_job_that_somebody_refuses_is_an_outcome_with_what_they_say(#[case] code: u16, #[case] says: &str) {
    let server = server();
    server.fail(Fault::refuse_saying(Method::POST, JOBS, code, says));
    let outcome = executor(&server).execute(&read(&server), &claim()).await.unwrap();
    assert_eq!(outcome, Outcome::JobRefused(says.to_owned()));
}

#[rstest]
#[case::by_a_policy(403, "denied by policy")]
#[case::webhook_out_of_reach(
    500,
    "Internal error occurred: failed calling webhook \"a\": connection refused"
)]
#[tokio::test]
async fn a_job_that_may_not_be_started_is_an_outcome_with_what_they_say(
    #[case] code: u16,
    #[case] says: &str,
) {
    let server = server();
    server.fail(Fault::refuse_saying(Method::PATCH, JOBS, code, says));
    let start = Effect::StartJob { name: "shop-1".into(), uid: "uid-1".into(), resource_version: "3".into() };
    let plan = Plan { effects: vec![start], ..Plan::default() };
    let outcome = executor(&server).execute(&read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::JobRefused(says.to_owned()));
}

#[rstest]
#[case::of_the_api_server(500)]
#[case::of_our_token(401)]
#[tokio::test]
async fn a_fault_that_may_pass_is_an_error_that_names_the_job(#[case] code: u16) {
    let server = server();
    server.fail(Fault::refuse(Method::POST, JOBS, code));
    let error = executor(&server).execute(&read(&server), &claim()).await.unwrap_err();
    assert!(matches!(&error, Error::Create(name, _) if name == "shop-1"), "{error}");
}

#[rstest]
#[case::gone(404)]
#[case::another_version(409)]
#[case::another_uid(422)]
#[tokio::test]
async fn a_job_that_changed_is_not_started_and_looked_at_again(#[case] code: u16) {
    let server = server();
    server.fail(Fault::refuse(Method::PATCH, JOBS, code));
    let start = Effect::StartJob { name: "shop-1".into(), uid: "uid-1".into(), resource_version: "3".into() };
    let plan = Plan { effects: vec![start, create()], ..Plan::default() };
    let outcome = executor(&server).execute(&read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::Outdated);
    let patch = &server.requests()[0].body;
    assert_eq!(patch["metadata"], json!({ "uid": "uid-1", "resourceVersion": "3" }));
    assert_eq!(server.writes().len(), 1, "nothing follows");
}

#[rstest]
#[case::gone(404)]
#[case::changed(409)]
#[case::another(422)]
#[tokio::test]
async fn a_job_that_is_gone_or_another_needs_no_deletion(#[case] code: u16) {
    let server = server();
    server.fail(Fault::refuse(Method::DELETE, JOBS, code));
    let plan = Plan {
        effects: vec![Effect::DeleteJob {
            name: "shop-1".into(),
            uid: "uid-1".into(),
            resource_version: Some("3".into()),
        }],
        ..Plan::default()
    };
    let outcome = executor(&server).execute(&read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    let preconditions = &server.requests()[0].body["preconditions"];
    assert_eq!(*preconditions, json!({ "uid": "uid-1", "resourceVersion": "3" }));
}

#[rstest]
#[case::ended(Effect::EndPod { name: "run-1".into(), uid: "uid-1".into() }, Method::PATCH)]
#[case::deleted(Effect::DeletePod { name: "web-2".into(), uid: "uid-1".into() }, Method::DELETE)]
#[tokio::test]
async fn a_pod_is_changed_by_its_uid_and_may_be_gone_or_another(
    #[case] effect: Effect,
    #[case] method: Method,
    #[values(404, 409, 422)] code: u16,
) {
    let server = server();
    server.fail(Fault::refuse(method, "/api/v1/namespaces/shop/pods", code));
    let plan = Plan { effects: vec![effect], ..Plan::default() };
    assert_eq!(executor(&server).execute(&read(&server), &plan).await.unwrap(), Outcome::Done);
    assert!(server.requests()[0].body.to_string().contains("uid-1"));
}

/// A policy that keeps Jobs and Pods from being deleted, or an admission webhook that is down.
#[rstest]
#[case::job(
    Effect::DeleteJob { name: "old".into(), uid: "uid-1".into(), resource_version: None }, Method::DELETE, "jobs/old"
)]
#[case::pod(Effect::DeletePod { name: "web-2".into(), uid: "uid-1".into() }, Method::DELETE, "pods/web-2")]
#[case::leftover(Effect::EndPod { name: "run-1".into(), uid: "uid-1".into() }, Method::PATCH, "pods/run-1")]
#[tokio::test]
async fn what_may_not_be_deleted_keeps_no_migration_from_starting(
    #[case] effect: Effect,
    #[case] method: Method,
    #[case] path: &str,
    #[values(403, 500)] code: u16,
) {
    let server = server();
    server.fail(Fault::refuse_saying(method, path, code, "blocked by policy"));
    let plan = Plan { effects: vec![effect, create()], ..claim() };
    let error = executor(&server).execute(&read(&server), &plan).await.unwrap_err();
    assert!(causes(&error).contains("blocked by policy"), "{}", causes(&error));
    assert_eq!(server.writes().last(), Some(&format!("POST {JOBS}")));
}

/// The migration that can't start needs someone more than what is left over.
#[tokio::test]
async fn a_refused_job_is_told_also_where_a_deletion_failed() {
    let server = server();
    server.fail(Fault::refuse(Method::DELETE, JOBS, 403));
    server.fail(Fault::refuse_saying(Method::POST, JOBS, 403, "exceeded quota"));
    let delete = Effect::DeleteJob { name: "old".into(), uid: "uid-1".into(), resource_version: None };
    let plan = Plan { effects: vec![delete, create()], ..claim() };
    let outcome = executor(&server).execute(&read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::JobRefused("exceeded quota".to_owned()));
}

/// The API server's words, not the same sentence twice.
#[tokio::test]
async fn a_look_that_failed_says_why_in_the_api_servers_words() {
    let server = server();
    server.fail(Fault::refuse_saying(Method::DELETE, JOBS, 403, "no rights"));
    let delete = Effect::DeleteJob { name: "old".into(), uid: "uid-1".into(), resource_version: None };
    let plan = Plan { effects: vec![delete], ..Plan::default() };
    let error = executor(&server).execute(&read(&server), &plan).await.unwrap_err();
    let told = causes(&migrations_controller::reconcile::Error::from(error));
    assert!(told.starts_with("cannot delete Job old: ") && told.contains("no rights"), "{told}");
    assert_eq!(told.matches("cannot delete").count(), 1, "{told}");
}

#[tokio::test]
async fn a_lock_that_somebody_else_took_is_an_outcome_and_nothing_follows() {
    let server = server();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/operator/leases";
    server.fail(Fault::refuse(Method::POST, leases, 409));
    let take = Effect::TakeLock { lease: "migrations-lock-db".into(), found: None };
    let plan = Plan { effects: vec![take, create()], ..Plan::default() };
    assert_eq!(executor(&server).execute(&read(&server), &plan).await.unwrap(), Outcome::Outdated);
    assert_eq!(server.writes(), [format!("POST {leases}")]);
    let lease = &server.requests()[0].body;
    assert_eq!(lease.pointer("/spec/holderIdentity"), Some(&json!("shop/shop/uid-shop")));
}

/// Of two that revoke or give back a lock, one wins.
#[rstest]
#[case::revoked(|lease: String, found| Effect::TakeLock { lease, found: Some(found) }, Method::PUT, "metadata")]
#[case::given_back(|lease: String, found| Effect::ReleaseLock { lease, found }, Method::DELETE, "preconditions")]
#[tokio::test]
async fn a_lock_is_changed_as_it_was_found(
    #[case] effect: fn(String, LeaseVersion) -> Effect,
    #[case] method: Method,
    #[case] place: &str,
    #[values(404, 409, 422)] code: u16,
) {
    let server = server();
    server.fail(Fault::refuse(method, "/apis/coordination.k8s.io/v1/namespaces/operator/leases", code));
    let found = LeaseVersion { uid: "uid-1".to_owned(), resource_version: "7".to_owned() };
    let plan = Plan { effects: vec![effect("lock-db".to_owned(), found)], ..Plan::default() };
    assert_eq!(executor(&server).execute(&read(&server), &plan).await.unwrap(), Outcome::Outdated);
    let sent = &server.requests()[0].body[place];
    assert_eq!((&sent["uid"], &sent["resourceVersion"]), (&json!("uid-1"), &json!("7")));
}
