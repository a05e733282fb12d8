//! Questions as waiters ask them: over TLS, held until the answer changes.

use std::time::{Duration, Instant};

use crate::shell::{Shell, selecting_shop};
use migrations_protocol::{Answer, Container, QUESTION_PATH, Question, Verdict};
use serde_json::{Value, json};

fn question(seen: Option<String>) -> Question {
    Question {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: vec![Container { name: "app".to_owned(), image: "shop:2".to_owned() }],
        revision: None,
        follower: false,
        seen,
    }
}

impl Shell {
    async fn ask(&self, seen: Option<String>) -> Answer {
        let body = serde_json::to_string(&question(seen)).unwrap();
        let (status, body) = self.post(self.question, QUESTION_PATH, body).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn set_status(&self, status: &Value) {
        self.apply("shop", &selecting_shop(), status);
    }
}

fn done() -> Value {
    json!({"done": [{"key": "shop:2", "image": "shop:2", "how": "Succeeded"}]})
}

/// Runs `event` a moment after a question that is held; returns its answer and the time from the
/// event to the answer.
async fn held_until(shell: &Shell, seen: String, event: impl FnOnce()) -> (Answer, Duration) {
    let held = shell.ask(Some(seen));
    tokio::pin!(held);
    tokio::select! {
        answer = &mut held => panic!("it was not held: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(500)) => event(),
    }
    let happened = Instant::now();
    let answer = tokio::time::timeout(Duration::from_secs(5), held).await.expect("it is pushed");
    (answer, happened.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_at_once_then_held_until_a_push_releases_it() {
    let shell = Shell::start().await;
    shell.set_status(&json!({}));
    let first = shell.ask(None).await;
    assert_eq!(first.verdict, Verdict::Wait);
    let (answer, took) = held_until(&shell, first.version, || shell.set_status(&done())).await;
    assert_eq!(answer.verdict, Verdict::Released);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_leaves_the_answer_as_it_is_does_not_end_the_hold() {
    let shell = Shell::start().await;
    shell.set_status(&json!({}));
    let first = shell.ask(None).await;
    shell.apply("other", &selecting_shop(), &done());
    let (answer, _) = held_until(&shell, first.version, || {
        shell.set_status(&json!({"waiting": 7}));
        std::thread::sleep(Duration::from_millis(200));
        shell.set_status(&done());
    })
    .await;
    assert_eq!(answer.verdict, Verdict::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_that_comes_later_is_heard_of() {
    let shell = Shell::start().await;
    let first = shell.ask(None).await;
    assert_eq!(first.reason, "NoMigrator");
    let (answer, _) = held_until(&shell, first.version, || shell.set_status(&done())).await;
    assert_eq!(answer.verdict, Verdict::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_what_is_held_is_answered_and_the_servers_stop() {
    let shell = Shell::start().await;
    let first = shell.ask(None).await;
    let (answer, took) = held_until(&shell, first.version.clone(), || shell.end.request()).await;
    assert_eq!(answer.version, first.version);
    assert!(took < Duration::from_secs(1), "{took:?}");
    tokio::time::timeout(Duration::from_secs(3), shell.served).await.expect("it drains").unwrap();
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let shell = Shell::start().await;
    let (status, body) = shell.post(shell.question, QUESTION_PATH, "{}").await;
    assert_eq!(status, 400);
    assert!(body.contains("missing field `namespace`"), "{body}");
    assert_eq!(shell.post(shell.question, "/v0/question", "{}").await.0, 404);
    assert_eq!(shell.post(shell.question, "/admit", "{}").await.0, 404);
    assert_eq!(shell.post(shell.question, QUESTION_PATH, vec![b' '; 64 * 1024 + 1]).await.0, 413);
}
