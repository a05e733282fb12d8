//! What requests cost that are made to cost memory. In a program of its own: it looks at what the whole
//! process takes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt, Full};
use migrations_core::inject::{Resources, UnsupportedPods};
use migrations_process::shutdown::Shutdown;
use migrations_protocol::{Answer, QUESTION_PATH, TOKEN_AUDIENCE};
use migrations_testkit::recording::RecordingServer;
use migrations_webhook::admission::Admission;
use migrations_webhook::held::Held;
use migrations_webhook::metrics::Metrics;
use migrations_webhook::question::Questions;
use migrations_webhook::settings::InForce;
use migrations_webhook::tokens::Tokens;
use migrations_webhook::turns::Turns;
use migrations_webhook::view::View;
use serde_json::json;

const MIB: usize = 1024 * 1024;

/// Pods whose waiters ask at a time.
const WAITERS: usize = 50;

/// One after the other, since they share what is measured.
#[tokio::test]
async fn no_request_takes_many_times_what_it_sends() {
    let (tokens, questions) = questions();
    let ask = |token: &str, seen: Option<&str>| {
        // Written by hand: labels without values take most.
        let labels: Vec<_> = (0..6900).map(|number| format!("\"{number:x}\":\"\"")).collect();
        let body = format!(
            "{{\"namespace\":\"default\",\"migrator\":\"shop\",\"containers\":[],\"labels\":{{{}}},\"seen\":{}}}",
            labels.join(","),
            json!(seen)
        );
        assert!(body.len() < 65536, "{}", body.len());
        let request = Request::post(QUESTION_PATH).header(AUTHORIZATION, format!("Bearer {token}"));
        questions.handle(request.body(Full::new(Bytes::from(body))).unwrap())
    };
    let first = ask(&tokens[0], None).await.into_body().collect().await.unwrap().to_bytes();
    let seen = serde_json::from_slice::<Answer>(&first).unwrap().version;
    let before = measured("VmRSS:");
    let mut held = Box::pin(join_all(tokens.iter().map(|token| Box::pin(ask(token, Some(&seen))))));
    // Their tokens are verified in the meantime.
    while questions_held(&questions) < WAITERS {
        assert!((&mut held).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let taken = measured("VmRSS:").saturating_sub(before);
    println!("{WAITERS} held questions of 64 KiB: {} MiB", taken / MIB);
    assert!(taken < WAITERS * 256 * 1024, "held questions took {taken} bytes");
    drop(held);

    let resources = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
    let settings =
        InForce::new("operator", "waiter:1".to_owned(), resources, UnsupportedPods::default(), None);
    let metrics = Metrics::default();
    let admission = Admission { view: View::default(), settings, turns: Turns::default(), metrics };

    // What the allocator keeps of one is there for the next.
    let before = measured("VmRSS:");
    for (name, body) in reviews() {
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let length = body.len();
        let request = Request::post("/admit").body(Full::new(Bytes::from(body))).unwrap();
        let status = admission.handle(request).await.status();
        let taken = measured("VmHWM:").saturating_sub(before);
        println!("{name}: {length} bytes, answered {status}, took {} MiB", taken / MIB);
        assert!(taken < 64 * MIB, "{name} took {taken} bytes");
    }
}

/// Bodies of up to 4 MiB that are no reviews, or none of a Pod.
fn reviews() -> [(&'static str, String); 5] {
    let array = |text: &str, count: usize| format!("[{}{text}]", format!("{text},").repeat(count - 1));
    let as_object = |object: &str| {
        format!(
            "{{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{{\"uid\":\"u\",\
             \"operation\":\"CREATE\",\"namespace\":\"default\",\"resource\":{{\"resource\":\"pods\"}},\
             \"object\":{{\"x\":{object}}}}}}}"
        )
    };
    let nested = format!("{}{}", "[".repeat(120), "]".repeat(120));
    [
        ("zeros", array("0", 2 * MIB - 2)),
        ("zeros as an object", as_object(&array("0", 2 * MIB - 200))),
        // As many values as are read.
        ("objects", array("{\"\":0}", 107_000)),
        ("objects as an object", as_object(&array("{\"\":0}", 107_000))),
        ("nested as an object", as_object(&array(&nested, 1_750))),
    ]
}

/// The questions of a cluster in which that many Pods have the tokens that are returned.
fn questions() -> (Vec<String>, Questions) {
    let api = RecordingServer::new();
    let tokens: Vec<_> = (0..WAITERS)
        .map(|number| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"jti": number}).to_string())))
        .collect();
    for (number, token) in tokens.iter().enumerate() {
        let extra = json!({
            "authentication.kubernetes.io/pod-name": [format!("shop-{number}")],
            "authentication.kubernetes.io/pod-uid": [format!("uid-{number}")],
        });
        let user = json!({"username": "system:serviceaccount:default:default", "extra": extra});
        api.know_token(token, json!({"authenticated": true, "audiences": [TOKEN_AUDIENCE], "user": user}));
    }
    let (_, end) = Shutdown::by_hand();
    let view = View::default();
    let metrics = Metrics::default();
    let known = Tokens::new(api.client(), metrics.clone());
    (tokens, Questions { view, tokens: known, held: Held::default(), end, metrics })
}

fn questions_held(questions: &Questions) -> usize {
    let held = format!("{:?}", questions.held);
    held.matches("uid-").count()
}

/// A line of the process's status, in bytes.
fn measured(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
