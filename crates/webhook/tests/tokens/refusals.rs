//! The one token that is answered, and those that aren't.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use migrations_api::Migrator;
use migrations_protocol::{TOKEN_AUDIENCE, Verdict};
use migrations_testkit::cluster::ControlPlane;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::webhook::{Webhook, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_own_token_is_answered_and_its_uid_may_release_it() {
    let webhook = Webhook::start().await;
    let (pod, other) = (webhook.pod("shop").await, webhook.pod("other").await);
    let own = webhook.token(&json!({}), Some(&pod)).await;
    let others = webhook.token(&json!({}), Some(&other)).await;
    assert_eq!(webhook.answer(&own).await.reason, "Pending");

    let done = json!({"status": {"done": [
        {"key": "lead:1", "image": "lead:1", "how": "Succeeded", "revisions": [pod.uid()]},
    ]}});
    let migrators = webhook.namespace.api::<Migrator>();
    migrators.patch_status("shop", &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    while webhook.answer(&own).await.verdict != Verdict::Released {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(webhook.answer(&others).await.verdict, Verdict::Wait);
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

    let expired =
        resigned(&own, &webhook, |claims| claims["exp"] = json!(claims["iat"].as_u64().unwrap() - 3600));
    refused.push(("expired", expired, 401, "service account token has expired"));
    // The way of signing is the API server's own: this one is good.
    assert_eq!(webhook.ask(&resigned(&own, &webhook, |_| {})).await.0, 200);
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

/// The token with other claims, signed as the API server does.
fn resigned(token: &str, webhook: &Webhook, change: impl Fn(&mut Value)) -> String {
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let message = format!("{header}.{}", changed(claims, change));
    let key = PrivateKeyDer::from_pem_file(webhook.signing_key()).unwrap();
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let signature = fixed(&signer.sign(message.as_bytes()).unwrap());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn changed(claims: &str, change: impl Fn(&mut Value)) -> String {
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    change(&mut claims);
    URL_SAFE_NO_PAD.encode(claims.to_string())
}

/// The two numbers of a signature in DER, 32 bytes each, as tokens have them.
fn fixed(der: &[u8]) -> Vec<u8> {
    let (mut rest, mut fixed) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - number.len()));
        fixed.extend(number);
        rest = after;
    }
    fixed
}
