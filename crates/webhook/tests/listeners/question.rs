//! Questions as waiters ask them: over TLS, held until the answer changes.

use std::time::{Duration, Instant};

use crate::shell::{POD_UID, Shell, selecting_shop, token_of};
use http::Method;
use migrations_protocol::{Answer, Container, QUESTION_PATH, Question, Verdict};
use migrations_testkit::recording::Fault;
use rstest::rstest;
use serde_json::{Value, json};

fn question(seen: Option<String>) -> Question {
    Question {
        namespace: "default".to_owned(),
        migrator: "shop".to_owned(),
        containers: vec![Container { name: "app".to_owned(), image: "shop:2".to_owned() }],
        revision: None,
        follower: false,
        labels: [("app".to_owned(), "shop".to_owned())].into(),
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

/// Some of a Pod's questions may be of lost connections.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_question_of_a_pod_gives_way_to_the_newest() {
    let shell = Shell::start().await;
    shell.set_status(&json!({}));
    let seen = shell.ask(None).await.version;
    let body = serde_json::to_string(&question(Some(seen.clone()))).unwrap();
    let oldest = shell.post(shell.question, QUESTION_PATH, body.as_str());
    tokio::pin!(oldest);
    let pause = || tokio::time::sleep(Duration::from_millis(300));
    tokio::select! {
        answer = &mut oldest => panic!("it was not held: {answer:?}"),
        () = pause() => {}
    }
    let others = async {
        tokio::join!(
            shell.ask(Some(seen.clone())),
            shell.ask(Some(seen.clone())),
            shell.ask(Some(seen.clone()))
        )
    };
    tokio::pin!(others);
    tokio::select! {
        answer = &mut oldest => panic!("there was room: {answer:?}"),
        _ = &mut others => panic!("they were not held"),
        () = pause() => {}
    }
    let newest = shell.ask(Some(seen.clone()));
    tokio::pin!(newest);
    let (status, said) = tokio::select! {
        answer = &mut oldest => answer,
        _ = &mut others => panic!("not the oldest"),
        _ = &mut newest => panic!("it was not held"),
    };
    assert_eq!((status, said.contains("newer questions of the same Pod")), (429, true), "{said}");
    shell.set_status(&done());
    let ((second, third, fourth), newest) = tokio::join!(others, newest);
    assert!([second, third, fourth, newest].iter().all(|answer| answer.verdict == Verdict::Released));
}

/// A Pod may ask about any name, and each is remembered for a while.
#[tokio::test]
async fn made_up_names_are_refused_before_they_take_memory() {
    let shell = Shell::start().await;
    shell.set_status(&json!({}));
    let ask = async |name: &str| {
        let question = Question { migrator: name.to_owned(), ..question(None) };
        shell.post(shell.question, QUESTION_PATH, serde_json::to_string(&question).unwrap()).await
    };
    let (status, body) = ask(&"x".repeat(254)).await;
    assert_eq!((status, body.as_str()), (400, "no Migrator's name has more than 253 characters\n"));

    let made_up = (0..).map(|number| format!("made-up-{number}"));
    let remembered = made_up.take_while(|name| shell.view.watch("default", name).is_ok()).count();
    assert!(remembered < 1000, "{remembered}");
    let (status, body) = ask("one-more").await;
    assert_eq!(status, 429);
    assert!(body.contains("Migrators that don't exist"), "{body}");
    assert_eq!(ask("made-up-0").await.0, 200);
    assert_eq!(ask("shop").await.0, 200);
}

#[tokio::test]
async fn the_pods_uid_is_the_tokens() {
    let shell = Shell::start().await;
    shell.set_status(
        &json!({"done": [{"key": "a", "image": "a", "how": "Succeeded", "revisions": [POD_UID]}]}),
    );
    assert_eq!(shell.ask(None).await.verdict, Verdict::Released);
}

#[tokio::test]
async fn a_pod_that_is_no_longer_selected_is_released() {
    let shell = Shell::start().await;
    shell.set_status(&json!({}));
    let first = shell.ask(None).await;
    let (answer, _) = held_until(&shell, first.version, || {
        shell.apply("shop", &json!({"selector": {"matchLabels": {"app": "web"}}}), &json!({}));
    })
    .await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Released, "NotSelected"));
}

const OTHER: &str = "e30.e30.b3RoZXI";

#[rstest]
#[case::no_token("", json!({}), 401, "the token isn't accepted: there is none; a waiter sends the one")]
#[case::another_scheme("Basic e30.e30.c2ln", json!({}), 401, "there is none")]
#[case::garbage("Bearer secret", json!({}), 401, "it is no service account's token")]
#[case::unknown("Bearer e30.e30.b3RoZXI", json!({}), 401, "the API server doesn't know it")]
#[case::expired("Bearer e30.e30.b3RoZXI", json!({"error": "service account token has expired"}), 401, "has expired")]
#[case::another_namespaces(
    "Bearer e30.e30.b3RoZXI",
    token_of("blog"),
    403,
    "Pod shop-1 of namespace blog asks about namespace \"default\""
)]
#[case::nobodys_pod(
    "Bearer e30.e30.b3RoZXI",
    json!({"authenticated": true, "audiences": ["migrations.coderanger.net"], "user": {"username": "jane"}}),
    403, "the token of jane is bound to no Pod")]
#[tokio::test]
async fn who_may_not_ask_is_told_why(
    #[case] authorization: &str,
    #[case] review: Value,
    #[case] status: u16,
    #[case] said: &str,
) {
    let shell = Shell::start().await;
    shell.set_status(&done());
    shell.api.know_token(OTHER, review);
    let body = serde_json::to_string(&question(None)).unwrap();
    let (answered, body) = shell.post_with(authorization, shell.question, QUESTION_PATH, body).await;
    assert_eq!(answered, status, "{body}");
    assert!(body.contains(said), "{body}");
}

#[tokio::test]
async fn nothing_is_read_of_who_is_not_known() {
    let shell = Shell::start().await;
    let large = vec![b' '; 64 * 1024 + 1];
    assert_eq!(shell.post_with("", shell.question, QUESTION_PATH, large).await.0, 401);
}

#[tokio::test]
async fn without_the_api_server_known_tokens_are_answered_and_others_come_again() {
    let shell = Shell::start().await;
    shell.set_status(&done());
    assert_eq!(shell.ask(None).await.verdict, Verdict::Released);
    shell.api.know_token(OTHER, token_of("default"));
    shell.api.fail(Fault::refuse(Method::POST, "/tokenreviews", 500));
    assert_eq!(shell.ask(None).await.verdict, Verdict::Released);
    let other = format!("Bearer {OTHER}");
    let body = serde_json::to_string(&question(None)).unwrap();
    let (status, said) = shell.post_with(&other, shell.question, QUESTION_PATH, body.as_str()).await;
    assert_eq!((status, said.contains("ask again")), (503, true), "{said}");
    assert_eq!(shell.post_with(&other, shell.question, QUESTION_PATH, body).await.0, 200);
    assert_eq!(shell.post(shell.question, QUESTION_PATH, "{}").await.0, 400);
}
