//! The one token that is answered, and those that aren't.

use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use migrations_protocol::{TOKEN_AUDIENCE, Verdict};
use migrations_testkit::cluster::ControlPlane;
use serde_json::json;

use crate::forgery::{changed, resigned};
use crate::webhook::{Webhook, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_token_is_answered_and_its_uid_may_release_it() {
    let webhook = Webhook::start().await;
    let (pod, other) = (webhook.pod("shop").await, webhook.pod("other").await);
    let own = webhook.token(&json!({}), Some(&pod)).await;
    let others = webhook.token(&json!({}), Some(&other)).await;
    let seen = webhook.answer(&own, None).await;
    assert_eq!(seen.reason, "Pending");

    let held = webhook.answer(&own, Some(&seen.version));
    let uid = pod.uid().unwrap();
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        webhook.done("lead:1", &[&uid]).await;
    };
    let (answer, ()) = tokio::join!(held, release);
    assert_eq!(answer.verdict, Verdict::Released);
    assert_eq!(webhook.answer(&others, None).await.verdict, Verdict::Wait);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_and_pushes() {
    let first = Webhook::start().await;
    let second = first.another().await;
    let pod = first.pod("shop").await;
    let token = first.token(&json!({}), Some(&pod)).await;
    let seen = first.answer(&token, None).await.version;
    assert_eq!(second.answer(&token, None).await.version, seen);

    let held = async { tokio::join!(first.answer(&token, Some(&seen)), second.answer(&token, Some(&seen))) };
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        first.done("shop:2", &[]).await;
    };
    let ((one, other), ()) = tokio::join!(held, release);
    assert_eq!((one.verdict, other.verdict), (Verdict::Released, Verdict::Released));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_token_is_refused_and_told_why() {
    let webhook = Webhook::start().await;
    let pod = webhook.pod("shop").await;
    let own = webhook.token(&json!({}), Some(&pod)).await;
    let mut refused = vec![
        ("a user's own", webhook.token(&json!({}), None).await, 403, "is bound to no Pod"),
        (
            "for another audience",
            webhook.token(&json!({"spec": {"audiences": ["vault"]}}), Some(&pod)).await,
            401,
            "is invalid for the target audiences",
        ),
        (
            "for the API server",
            webhook.token(&json!({"spec": {"audiences": null}}), Some(&pod)).await,
            401,
            "is invalid",
        ),
        ("garbage", "garbage".to_owned(), 401, "no service account's token"),
        ("cut", own[..own.len() - 4].to_owned(), 401, "isn't accepted"),
    ];

    let expired = resigned(&own, &webhook.signing_key(), |claims| {
        claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 3600);
    });
    refused.push(("expired", expired, 401, "service account token has expired"));
    // The way of signing is the API server's own: this one is good.
    assert_eq!(webhook.ask(&resigned(&own, &webhook.signing_key(), |_| {})).await.0, 200);
    let claims = own.split('.').nth(1).unwrap();
    let forged = own.replace(claims, &changed(claims, |claims| claims["jti"] = json!("another")));
    refused.push(("forged", forged, 401, "isn't accepted"));

    let neighbour = ControlPlane::shared().await.namespace().await;
    let stranger = migrations_testkit::builders::pod("shop").label("app", "shop").container("app", "shop:2");
    let stranger: Pod = neighbour.create(&stranger).await;
    let neighbours = token(&neighbour, &json!({}), Some(&stranger)).await;
    refused.push(("another namespace's", neighbours, 403, "and is told of its own alone"));

    for (what, token, status, said) in refused {
        let (answered, body) = webhook.ask(&token).await;
        assert_eq!(answered, status, "{what}: {body}");
        assert!(body.contains(said), "{what}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pods_token_is_refused() {
    let webhook = Webhook::start().await;
    let pod = webhook.pod("shop").await;
    let token = webhook.token(&json!({}), Some(&pod)).await;
    webhook.namespace.api::<Pod>().delete("shop", &DeleteParams::default().grace_period(0)).await.unwrap();
    // The API server takes a moment to know it itself.
    let reviews: Api<TokenReview> = Api::all(webhook.namespace.client());
    let spec = json!({"metadata": {}, "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]}});
    let review: TokenReview = serde_json::from_value(spec).unwrap();
    let good = || async {
        let review = reviews.create(&PostParams::default(), &review).await.unwrap();
        review.status.unwrap().authenticated == Some(true)
    };
    while good().await {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let (status, body) = webhook.ask(&token).await;
    assert_eq!(status, 401, "{body}");
    assert!(body.contains("service account token has been invalidated"), "{body}");
}
