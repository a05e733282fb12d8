//! Tokens against an API server in memory: how often it is asked, and what happens when it doesn't
//! answer. Time is the test's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use http::Method;
use migrations_testkit::recording::{Fault, RecordingServer};
use serde_json::{Value, json};

use super::*;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A token that lasts for an hour; `name` tells it from others.
fn token(name: &str) -> String {
    lasting(name, 3600)
}

fn lasting(name: &str, seconds: u64) -> String {
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + seconds;
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"jti": name, "exp": end}).to_string()))
}

fn of_a_pod() -> Value {
    json!({
        "authenticated": true, "audiences": [migrations_protocol::TOKEN_AUDIENCE],
        "user": {"username": "system:serviceaccount:shop:default", "extra": {
            "authentication.kubernetes.io/pod-name": ["web-0"], "authentication.kubernetes.io/pod-uid": ["u-1"],
        }},
    })
}

/// A server that knows these tokens for a Pod's, and who asks it.
fn knowing(tokens: &[&str]) -> (RecordingServer, Tokens) {
    let server = RecordingServer::new();
    for token in tokens {
        server.know_token(token, of_a_pod());
    }
    let tokens = Tokens::new(server.client(), Metrics::default());
    (server, tokens)
}

fn asked(server: &RecordingServer) -> usize {
    server.requests().len()
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_asked_for_this_audience_and_says_whose_it_is() {
    let token = token("a");
    let (server, tokens) = knowing(&[&token]);
    let caller = tokens.verify(&token).await.unwrap();
    assert_eq!(
        *caller,
        Caller { namespace: "shop".to_owned(), pod: "web-0".to_owned(), uid: "u-1".to_owned() }
    );
    let request = &server.requests()[0];
    assert_eq!((&request.method, request.path.as_str()), (&Method::POST, REVIEWS));
    assert_eq!(request.body["spec"], json!({"token": token, "audiences": ["migrations.coderanger.net"]}));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_questions_at_once_with_one_token_cost_one_review() {
    let token = token("a");
    let (server, tokens) = knowing(&[&token]);
    let verdicts = join_all((0..100).map(|_| tokens.verify(&token))).await;
    assert!(verdicts.iter().all(Result::is_ok));
    assert_eq!(asked(&server), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_may_leave_before_the_answer() {
    let token = token("a");
    let (server, tokens) = knowing(&[&token]);
    let mut first = Box::pin(tokens.verify(&token));
    assert!(futures::poll!(&mut first).is_pending());
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tokens.lock().asked.is_empty());
    assert!(tokens.verify(&token).await.is_ok());
    assert_eq!(asked(&server), 1);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_holds_for_a_minute() {
    let token = token("a");
    let (server, tokens) = knowing(&[&token]);
    for (seconds, reviews) in [(0, 1), (59, 1), (1, 2), (59, 2)] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        assert!(tokens.verify(&token).await.is_ok());
        assert_eq!(asked(&server), reviews);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_revoked_is_refused_within_a_minute() {
    let token = token("a");
    let (server, tokens) = knowing(&[&token]);
    assert!(tokens.verify(&token).await.is_ok());
    server.know_token(
        &token,
        json!({"error": "[invalid bearer token, service account token has been invalidated]"}),
    );
    tokio::time::advance(Duration::from_mins(1)).await;
    let refusal = tokens.verify(&token).await.unwrap_err();
    assert!(refusal.to_string().contains("service account token has been invalidated"), "{refusal}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_for_a_few_seconds() {
    let token = token("a");
    let (server, tokens) = knowing(&[]);
    assert!(matches!(tokens.verify(&token).await, Err(Refusal::Unauthenticated(_))));
    assert!(matches!(tokens.verify(&token).await, Err(Refusal::Unauthenticated(_))));
    assert_eq!(asked(&server), 1);
    server.know_token(&token, of_a_pod());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(tokens.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_by_its_form_does_not_reach_the_api_server() {
    let (server, tokens) = knowing(&[]);
    for garbage in ["", "secret", "a.b.c", "e30.e30.", &"x".repeat(100_000)] {
        assert!(matches!(tokens.verify(garbage).await, Err(Refusal::Unauthenticated(_))));
    }
    assert_eq!(asked(&server), 0);
}

/// What an API server does that can't be asked.
fn out_of_order() -> [fn(&RecordingServer); 3] {
    [
        |server| server.fail(Fault::refuse(Method::POST, REVIEWS, 500)),
        |server| server.fail(Fault::refuse(Method::POST, REVIEWS, 403)),
        |server| server.fail(Fault::silence(Method::POST, REVIEWS)),
    ]
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_known_tokens_go_on_and_others_are_told_to_come_again() {
    for fail in out_of_order() {
        let (known, unknown) = (token("known"), token("unknown"));
        let (server, tokens) = knowing(&[&known, &unknown]);
        assert!(tokens.verify(&known).await.is_ok());
        tokio::time::advance(Duration::from_mins(1)).await;
        fail(&server);
        assert!(tokens.verify(&known).await.is_ok());
        fail(&server);
        assert_eq!(tokens.verify(&unknown).await, Err(Refusal::Unavailable));
        // Recovery: nothing of the outage is remembered.
        assert!(tokens.verify(&unknown).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_a_known_token_goes_on_until_it_ends() {
    let token = lasting("a", 90);
    let (server, tokens) = knowing(&[&token]);
    assert!(tokens.verify(&token).await.is_ok());
    for (seconds, verdict) in [(70, Ok(())), (30, Err(Refusal::Unavailable))] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        server.fail(Fault::refuse(Method::POST, REVIEWS, 500));
        assert_eq!(tokens.verify(&token).await.map(drop), verdict);
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_its_own_that_the_api_server_tells_of_is_no_refusal() {
    let token = token("a");
    let (server, tokens) = knowing(&[]);
    server.know_token(&token, json!({"authenticated": false, "error": "etcdserver: request timed out"}));
    assert_eq!(tokens.verify(&token).await, Err(Refusal::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn few_reviews_run_at_a_time_and_none_is_waited_for_longer_than_its_time() {
    let (server, tokens) = knowing(&[]);
    for _ in 0..100 {
        server.fail(Fault::silence(Method::POST, REVIEWS));
    }
    let started = Instant::now();
    let all: Vec<_> = (0..100).map(|number| token(&number.to_string())).collect();
    let verdicts = join_all(all.iter().map(|token| tokens.verify(token))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Err(Refusal::Unavailable)));
    assert_eq!(asked(&server), AT_ONCE);
    assert_eq!(started.elapsed().as_secs(), REVIEW_TIME.as_secs());
    assert!(tokens.lock().asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_waits_for_its_turn_is_bounded_and_known_tokens_pass_it() {
    let known = token("known");
    let (server, tokens) = knowing(&[&known]);
    assert!(tokens.verify(&known).await.is_ok());
    tokio::time::advance(Duration::from_mins(1)).await;
    for _ in 0..AT_ONCE {
        server.fail(Fault::silence(Method::POST, REVIEWS));
    }
    let crowd: Vec<_> = (0..MOST_WAITING).map(|number| token(&number.to_string())).collect();
    let mut crowd = Box::pin(join_all(crowd.iter().map(|token| tokens.verify(token))));
    assert!(futures::poll!(&mut crowd).is_pending());
    let before = Instant::now();
    assert_eq!(tokens.verify(&token("one more")).await, Err(Refusal::Unavailable));
    assert!(tokens.verify(&known).await.is_ok());
    assert_eq!(Instant::now(), before, "neither waits");
}

#[tokio::test]
async fn a_token_is_in_no_debug_output() {
    let token = token("a");
    let (_, tokens) = knowing(&[&token]);
    tokens.verify(&token).await.unwrap();
    assert_eq!(format!("{tokens:?}"), "Tokens { .. }");
}
