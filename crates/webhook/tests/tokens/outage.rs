//! The API server, or its database, goes away and comes back.

use std::fs;
use std::process::Command;
use std::time::Duration;

use migrations_protocol::Verdict;
use migrations_testkit::builders::pod;
use migrations_testkit::cluster::ControlPlane;
use migrations_webhook::metrics::Metrics;
use migrations_webhook::tokens::{Refusal, Tokens};
use serde_json::json;

use crate::forgery::resigned;
use crate::proxy::Road;
use crate::webhook::{Webhook, token};

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_flow_to_known_tokens_and_others_come_again() {
    let webhook = Webhook::start().await;
    let known = webhook.pod("known").await;
    let known = webhook.token(&json!({}), Some(&known)).await;
    let waiting = webhook.answer(&known, None).await;
    assert_eq!(waiting.reason, "Pending");
    webhook.done("shop:2", &[]).await;
    assert_eq!(webhook.answer(&known, Some(&waiting.version)).await.verdict, Verdict::Released);

    for (name, road) in [("while-down", Road::Closed), ("while-silent", Road::Silent)] {
        let pod = webhook.pod(name).await;
        let unknown = webhook.token(&json!({}), Some(&pod)).await;
        webhook.api.set(road);
        assert_eq!(webhook.answer(&known, None).await.verdict, Verdict::Released);
        let (status, body) = webhook.ask(&unknown).await;
        assert_eq!(status, 503, "{road:?}: {body}");
        assert!(body.contains("ask again"), "{body}");
        assert_eq!(webhook.ask("garbage").await.0, 401, "what is refused by its form needs no API server");

        webhook.api.set(Road::Open);
        let answered = async {
            while webhook.ask(&unknown).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("it recovers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_hangs_nobody_is_refused_for_it() {
    let plane = ControlPlane::start().await;
    let namespace = plane.namespace().await;
    let mut bound = Vec::new();
    for name in ["known", "unknown"] {
        let pod = namespace.create(&pod(name).label("app", "shop").container("app", "shop:2")).await;
        bound.push(token(&namespace, &json!({}), Some(&pod)).await);
    }
    let tokens = Tokens::new(plane.client(), Metrics::default());
    assert!(tokens.verify(&bound[0]).await.is_ok());

    // Signed as the API server does, and of an account that has to be looked for.
    let key = plane.kubeconfig().with_file_name("tls.key");
    let strange = resigned(&bound[0], &key, |claims| {
        claims["kubernetes.io"]["serviceaccount"]["name"] = json!("ghost");
    });

    let database = Database::of(&plane);
    database.signal("-STOP");
    let verdicts = tokio::join!(tokens.verify(&bound[0]), tokens.verify(&bound[1]), tokens.verify(&strange));
    database.signal("-CONT");
    assert!(verdicts.0.is_ok());
    assert!(matches!(verdicts.1, Ok(_) | Err(Refusal::Unavailable)), "{verdicts:?}");
    assert_eq!(verdicts.2, Err(Refusal::Unavailable));

    let refused = async {
        loop {
            match tokens.verify(&strange).await {
                Err(Refusal::Unavailable) => tokio::time::sleep(Duration::from_millis(100)).await,
                other => return other,
            }
        }
    };
    let refusal =
        tokio::time::timeout(Duration::from_mins(1), refused).await.expect("it recovers").unwrap_err();
    assert!(refusal.to_string().contains("not found"), "{refusal}");
}

/// The etcd of a control plane.
struct Database(String);

impl Database {
    fn of(plane: &ControlPlane) -> Self {
        let directory = plane.kubeconfig().with_file_name("etcd");
        let argument = format!("--data-dir={}", directory.display());
        let is_it = |process: &fs::DirEntry| {
            let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
            let mut words = line.split('\0');
            words.next().is_some_and(|program| program.ends_with("/etcd"))
                && words.any(|word| word == argument)
        };
        let process = fs::read_dir("/proc").unwrap().flatten().find(is_it).expect("etcd runs");
        Self(process.file_name().into_string().unwrap())
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0]).status().unwrap().success());
    }
}
