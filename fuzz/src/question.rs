//! A question, from its bytes to the answer.

use std::time::Duration;

use migrations_api::{Migrator, names};
use migrations_core::answer::{Known, answer};
use migrations_protocol::{Answer, Question, Verdict};
use serde_json::{Value, json};

/// It is read as it was written; every answer to it can be read by a waiter, and none releases a Pod
/// but for a reason that releases.
pub fn check(body: &[u8]) {
    let Ok(question) = serde_json::from_slice::<Question>(body) else { return };
    let written = serde_json::to_vec(&question).expect("JSON");
    assert_eq!(serde_json::from_slice::<Question>(&written).expect("a question"), question);

    let absent = |seconds| Known::Absent { since: Duration::from_secs(seconds) };
    expect(&question, absent(0), false);
    expect(&question, absent(60), true);
    expect(&question, Known::Unreadable { error: "spec.selector: missing" }, false);
    let none = json!({});
    // The Migrator selects others by now.
    let left_out = !question.labels.is_empty() && question.labels.get("app").is_none_or(|app| app != "shop");
    let image = question.containers.first().map_or("none", |container| container.image.as_str());
    expect(&question, Known::Migrator(&migrator(&none, &none)), left_out);
    expect(&question, Known::Migrator(&migrator(&none, &failed(image))), left_out);
    let open = json!({ names::OPEN_ANNOTATION: "true" });
    expect(&question, Known::Migrator(&migrator(&open, &failed(image))), true);
    let done = json!({ "done": [{ "key": image, "image": image, "how": "Succeeded" }] });
    let has_image = !question.containers.is_empty();
    expect(&question, Known::Migrator(&migrator(&none, &done)), has_image || left_out);
}

fn expect(question: &Question, known: Known<'_>, released: bool) {
    let answer = answer(question, "pod-uid", known);
    assert_eq!(answer.verdict == Verdict::Released, released, "{question:?} {known:?} {answer:?}");
    assert!(!answer.reason.is_empty() && !answer.message.is_empty());
    let written = serde_json::to_vec(&answer).expect("JSON");
    assert_eq!(serde_json::from_slice::<Answer>(&written).expect("an answer"), answer);
}

fn failed(image: &str) -> Value {
    let record = json!({
        "key": image, "image": image, "job": "shop-1", "attempt": 1, "runHash": "1", "result": "Failed",
        "message": "exit code 1", "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z",
    });
    json!({ "history": [record] })
}

fn migrator(annotations: &Value, status: &Value) -> Migrator {
    let object = json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": { "name": "shop", "namespace": "default", "annotations": annotations },
        "spec": { "selector": { "matchLabels": { "app": "shop" } } }, "status": status,
    });
    serde_json::from_value(object).expect("a Migrator")
}
