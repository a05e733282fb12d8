//! Plans against an API server that says no: what is an outcome, what is an error, and what is left
//! undone (contract §5).

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use http::Method;
use migrations_api::{Migrator, MigratorStatus};
use migrations_controller::execute::{Error, Outcome, execute};
use migrations_core::plan::{Effect, Plan};
use migrations_testkit::builders::{Object, migrator};
use migrations_testkit::recording::{Fault, RecordingServer};
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

/// The Migrator as it is read from there.
fn read(server: &RecordingServer) -> Migrator {
    let object = server.object(MIGRATOR.trim_end_matches("/status")).unwrap();
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn the_status_comes_first_with_the_version_it_was_read_at() {
    let server = server();
    let shop = read(&server);
    let outcome = execute(&server.client(), &shop, &claim()).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(server.writes(), [format!("PUT {MIGRATOR}"), format!("POST {JOBS}")]);
    let (written, read) = (&server.requests()[0].body["metadata"], shop.metadata);
    assert_eq!(written["uid"], json!(read.uid));
    assert_eq!(written["resourceVersion"], json!(read.resource_version));
}

#[tokio::test]
async fn a_field_that_this_build_does_not_know_reaches_the_job() {
    let server = server();
    execute(&server.client(), &read(&server), &claim()).await.unwrap();
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
    let outcome = execute(&server.client(), &read(&server), &claim()).await.unwrap();
    assert_eq!(outcome, Outcome::Outdated);
    assert_eq!(server.writes(), [format!("PUT {MIGRATOR}")]);
}

#[rstest]
#[case::exists_already(409, Some(Outcome::Outdated))]
#[case::refused_by_quota(403, None)]
#[case::refused_as_invalid(422, None)]
#[tokio::test]
async fn a_job_that_is_not_created_is_an_outcome(#[case] code: u16, #[case] expected: Option<Outcome>) {
    let server = server();
    server.fail(Fault::refuse(Method::POST, JOBS, code));
    let outcome = execute(&server.client(), &read(&server), &claim()).await.unwrap();
    match expected {
        Some(expected) => assert_eq!(outcome, expected),
        None => assert!(matches!(outcome, Outcome::JobRefused(_)), "{outcome:?}"),
    }
}

#[tokio::test]
async fn a_fault_that_may_pass_is_an_error_that_names_the_job() {
    let server = server();
    server.fail(Fault::refuse(Method::POST, JOBS, 500));
    let error = execute(&server.client(), &read(&server), &claim()).await.unwrap_err();
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
    let outcome = execute(&server.client(), &read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::Outdated);
    let patch = &server.requests()[0].body;
    assert_eq!(patch["metadata"], json!({ "uid": "uid-1", "resourceVersion": "3" }));
    assert_eq!(server.writes().len(), 1, "nothing follows");
}

#[tokio::test]
async fn a_job_that_is_gone_needs_no_deletion() {
    let server = server();
    let plan = Plan {
        effects: vec![Effect::DeleteJob { name: "shop-1".into(), uid: "uid-1".into() }],
        ..Plan::default()
    };
    let outcome = execute(&server.client(), &read(&server), &plan).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(server.requests()[0].body["preconditions"]["uid"], json!("uid-1"));
}
