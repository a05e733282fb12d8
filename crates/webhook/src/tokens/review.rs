//! What is asked of the API server about a token, and what its answer means. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use migrations_protocol::TOKEN_AUDIENCE;
use serde::Deserialize;
use tokio::time::Instant;

use super::verdicts::Reviewed;
use super::{Caller, Refusal};

/// Longest token that is looked at, in bytes. Those of Pods have some 1.5 KB.
const LONGEST: usize = 4 * 1024;

/// Most that is repeated of the API server's words, in characters.
const WORDS: usize = 300;

/// Words by which the API server says that a token is not good. It puts faults of its own into the same
/// field (a database that doesn't answer), and those say nothing of the token.
const NOT_GOOD: [&str; 9] = [
    "invalid bearer token",
    "token has expired",
    "token is not valid yet",
    "token has been invalidated",
    "is invalid",
    "invalid signature",
    "error in cryptographic primitive",
    "does not match",
    "not found",
];

/// What a token says of itself. Not to be believed before the token is verified.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Claims {
    /// When it ends, in seconds since 1970.
    exp: Option<f64>,
}

impl Claims {
    /// Reads them; `None` of what isn't a service account's token by its form.
    pub(super) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if token.len() > LONGEST || signature.is_empty() || parts.next().is_some() {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// For how long from `now` it is good; `None` where it doesn't say.
    pub(super) fn lasts(self, now: SystemTime) -> Option<Duration> {
        let end = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(self.exp?).ok()?)?;
        Some(end.duration_since(now).unwrap_or_default())
    }
}

/// The question about a token.
pub(super) fn review_of(token: &str) -> TokenReview {
    let spec =
        TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) };
    TokenReview { spec, ..TokenReview::default() }
}

/// What the answer means for a token that is good until `expires`; fails with why it means nothing.
pub(super) fn read(status: &TokenReviewStatus, expires: Option<Instant>) -> Result<Reviewed, String> {
    let refused = |why: &str| Ok(Reviewed::Refused(Refusal::Unauthenticated(cut(why).into())));
    if status.authenticated != Some(true) {
        return match status.error.as_deref().unwrap_or_default() {
            "" => refused("the API server doesn't know it"),
            error if is_about_the_token(error) => refused(error),
            error => Err(error.to_owned()),
        };
    }
    // An API server that doesn't know of audiences leaves this out.
    if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return refused(&format!("it is not for {TOKEN_AUDIENCE}"));
    }
    let user = status.user.clone().unwrap_or_default();
    Ok(match caller(&user) {
        Some(caller) => Reviewed::Accepted { caller, expires },
        None => Reviewed::Refused(Refusal::NoPod(cut(&user.username.unwrap_or_default()).into())),
    })
}

/// Several errors come as one, in brackets.
fn is_about_the_token(error: &str) -> bool {
    let errors = error.trim_start_matches('[').trim_end_matches(']').split(", ");
    errors.into_iter().all(|error| NOT_GOOD.iter().any(|words| error.contains(words)))
}

/// The Pod that a service account's token is bound to.
fn caller(user: &UserInfo) -> Option<Caller> {
    let account = user.username.as_deref()?.strip_prefix("system:serviceaccount:")?;
    let (namespace, _) = account.split_once(':')?;
    let extra = |name: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{name}"))?;
        values.first().filter(|value| !value.is_empty()).cloned()
    };
    Some(Caller { namespace: namespace.to_owned(), pod: extra("pod-name")?, uid: extra("pod-uid")? })
}

fn cut(text: &str) -> String {
    text.chars().take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn status(changes: &Value) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true, "audiences": [TOKEN_AUDIENCE],
            "user": {
                "username": "system:serviceaccount:shop:default", "uid": "u",
                "extra": {"authentication.kubernetes.io/pod-name": ["web-0"], "authentication.kubernetes.io/pod-uid": ["u-1"]},
            },
        });
        json_patch::merge(&mut status, changes);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn namespace_and_pod_are_the_api_servers_words() {
        let expires = Some(Instant::now());
        let caller = Caller { namespace: "shop".to_owned(), pod: "web-0".to_owned(), uid: "u-1".to_owned() };
        assert_eq!(read(&status(&json!({})), expires), Ok(Reviewed::Accepted { caller, expires }));
    }

    #[rstest]
    #[case::nothing_said(json!({"authenticated": null}), "the API server doesn't know it")]
    #[case::not_recognised(json!({"authenticated": false, "error": "invalid bearer token"}), "invalid bearer token")]
    #[case::expired(
        json!({"authenticated": false, "error": "[invalid bearer token, service account token has expired]"}), "has expired")]
    #[case::pod_deleted(
        json!({"authenticated": false, "error": "[invalid bearer token, service account token has been invalidated]"}), "invalidated")]
    #[case::account_deleted(json!({"authenticated": false, "error": "serviceaccounts \"web\" not found"}), "not found")]
    #[case::pod_made_again(
        json!({"authenticated": false, "error": "pod UID (a) does not match service account pod ref claim (b)"}), "does not match")]
    #[case::another_audience(
        json!({"authenticated": false, "error": "token audiences [\"a\" \"b\"] is invalid for the target audiences [\"c\"]"}), "is invalid")]
    #[case::forged(
        json!({"authenticated": false, "error": "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]"}), "cryptographic")]
    #[case::audiences_are_unknown_to_the_server(json!({"audiences": null}), "it is not for migrations.coderanger.net")]
    #[case::audience_of_others(json!({"audiences": ["https://kubernetes.default.svc"]}), "it is not for")]
    fn what_is_no_good_token_is_refused(#[case] changes: Value, #[case] said: &str) {
        match read(&status(&changes), None) {
            Ok(Reviewed::Refused(Refusal::Unauthenticated(why))) => assert!(why.contains(said), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case::database_slow("etcdserver: request timed out")]
    #[case::database_gone(
        r#"[invalid bearer token, Get "https://127.0.0.1/api/v1/namespaces/a/serviceaccounts/b": context deadline exceeded]"#)]
    #[case::in_company("[invalid bearer token, context deadline exceeded]")]
    #[case::another_server_down(
        "[invalid bearer token, Post \"https://10.0.0.1\": dial tcp: connection refused]"
    )]
    fn a_fault_of_the_api_server_says_nothing_of_the_token(#[case] error: &str) {
        assert_eq!(
            read(&status(&json!({"authenticated": false, "error": error})), None),
            Err(error.to_owned())
        );
    }

    #[rstest]
    #[case::user(json!({"user": {"username": "jane"}}), "jane")]
    #[case::account_without_a_pod(json!({"user": {"extra": null}}), "system:serviceaccount:shop:default")]
    #[case::pod_without_a_uid(
        json!({"user": {"extra": {"authentication.kubernetes.io/pod-uid": [""]}}}), "system:serviceaccount:shop:default")]
    #[case::nobody(json!({"user": null}), "")]
    fn who_is_no_pod_is_refused(#[case] changes: Value, #[case] user: &str) {
        let refusal = Refusal::NoPod(user.into());
        assert_eq!(read(&status(&changes), None), Ok(Reviewed::Refused(refusal)));
    }

    /// A token with these claims, of the form that the API server's have.
    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[rstest]
    #[case::later(r#"{"exp": 130}"#, Some(30))]
    #[case::with_a_fraction(r#"{"exp": 130.0}"#, Some(30))]
    #[case::past(r#"{"exp": 10}"#, Some(0))]
    #[case::no_end("{}", None)]
    #[case::before_all_time(r#"{"exp": -7}"#, None)]
    #[case::after_all_time(r#"{"exp": 1e300}"#, None)]
    fn a_token_says_how_long_it_lasts(#[case] claims: &str, #[case] seconds: Option<u64>) {
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(Claims::of(&token(claims)).unwrap().lasts(now), seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::a_word("secret")]
    #[case::two_parts("e30.e30")]
    #[case::four_parts("e30.e30.c2ln.c2ln")]
    #[case::unsigned("e30.e30.")]
    #[case::not_base64("e30.{}.c2ln")]
    #[case::not_json("e30.c2ln.c2ln")]
    #[case::too_long(&token(&format!(r#"{{"x": "{}"}}"#, "x".repeat(LONGEST))))]
    fn garbage_is_known_by_its_form(#[case] token: &str) {
        assert!(Claims::of(token).is_none());
    }
}
