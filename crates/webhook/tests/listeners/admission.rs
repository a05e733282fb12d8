//! Admission as the API server meets it: reviews over TLS, and requests that are none.

use crate::shell::{Shell, selecting_shop};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rstest::rstest;
use serde_json::{Value, json};

const UNREADABLE: &str = "migrations_admissions_total{outcome=\"Unreadable\"} 1";

pub(crate) fn review(changes: &Value) -> Value {
    let mut review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": "CREATE", "namespace": "default", "name": "", "dryRun": false,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"generateName": "shop-", "labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "app", "image": "shop:2", "fieldOfTheFuture": [1]}]},
            },
        },
    });
    json_patch::merge(&mut review, changes);
    review
}

fn with_null_object() -> Value {
    let mut review = review(&json!({}));
    review["request"]["object"] = Value::Null;
    review
}

/// Sends a review to a shell whose Migrator `shop` selects the Pod, unless `gated` is false.
async fn admit(gated: bool, changes: &Value) -> Value {
    let shell = Shell::start().await;
    if gated {
        shell.apply("shop", &selecting_shop(), &Value::Null);
    }
    let (status, body) = shell.post(shell.admission, "/admit", review(changes).to_string()).await;
    assert_eq!(status, 200, "{body}");
    let review: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(review["kind"], "AdmissionReview");
    assert_eq!(review["response"]["uid"], "u-1");
    review["response"].clone()
}

/// Bytes are in base64.
fn patch_of(response: &Value) -> json_patch::Patch {
    serde_json::from_slice(&STANDARD.decode(response["patch"].as_str().unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_selected_pod_is_given_a_waiter() {
    let response = admit(true, &json!({})).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["patchType"], "JSONPatch");
    let mut pod = review(&json!({}))["request"]["object"].clone();
    let before = pod.clone();
    json_patch::patch(&mut pod, &patch_of(&response)).unwrap();
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "migrate-wait-shop");
    assert_eq!(pod["spec"]["initContainers"][0]["image"], "waiter:1");
    assert_eq!(pod["spec"]["containers"], before["spec"]["containers"]);
}

#[rstest]
#[case::no_migrator(false, json!({}))]
#[case::update(true, json!({"request": {"operation": "UPDATE"}}))]
#[case::subresource(true, json!({"request": {"subResource": "eviction"}}))]
#[case::other_kind(true, json!({"request": {"resource": {"resource": "services"}}}))]
#[case::other_namespace(true, json!({"request": {"namespace": "other"}}))]
#[case::delete_has_no_object(true, json!({"request": {"operation": "DELETE", "object": null}}))]
#[case::no_wait(true, json!({"request": {"object": {"metadata": {"annotations": {"migrations.coderanger.net/no-wait": "true"}}}}}))]
#[tokio::test]
async fn anything_else_is_admitted_untouched(#[case] gated: bool, #[case] changes: Value) {
    let response = admit(gated, &changes).await;
    assert_eq!((&response["allowed"], &response["patch"]), (&json!(true), &Value::Null), "{response}");
}

#[tokio::test]
async fn a_required_pod_that_no_migrator_selects_is_refused_and_told_why() {
    let required = json!({"metadata": {"annotations": {"migrations.coderanger.net/required": "true"}}});
    let response = admit(false, &json!({"request": {"object": required}})).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 403);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("\"shop-\" in namespace \"default\""), "{message}");
}

#[rstest]
#[case::not_json("{", 400, "\"\" can't be reviewed: its body is not JSON")]
#[case::another_kind(&review(&json!({"kind": "Pod"})).to_string(), 400, "\"u-1\" can't be reviewed: its body is a \"Pod\"")]
#[case::another_version(
    &review(&json!({"apiVersion": "admission.k8s.io/v1beta1"})).to_string(), 400, "must be an AdmissionReview of admission.k8s.io/v1")]
#[case::an_array("[0,0,0]", 400, "\"\" can't be reviewed: its body is a \"\" of \"\"")]
#[case::half_an_array("[0,0,", 400, "its body is not JSON")]
#[case::no_request(&review(&json!({"request": null})).to_string(), 400, "its field request is missing")]
#[case::wrong_type(&review(&json!({"request": {"operation": 7}})).to_string(), 400, "\"u-1\" can't be reviewed: its body is not an AdmissionReview")]
#[case::no_object(&review(&json!({"request": {"object": null}})).to_string(), 400, "its field request.object is missing")]
#[case::object_is_null(&with_null_object().to_string(), 400, "its field request.object is missing")]
#[case::no_namespace(&review(&json!({"request": {"namespace": null}})).to_string(), 400, "its field request.namespace is missing")]
#[tokio::test]
async fn a_malformed_review_is_told_what_is_wrong(
    #[case] body: &str,
    #[case] status: u16,
    #[case] said: &str,
) {
    let shell = Shell::start().await;
    let (answered, body) = shell.post(shell.admission, "/admit", body).await;
    assert_eq!(answered, status);
    assert!(body.contains(said), "{body}");
    assert!(shell.counts(UNREADABLE));
}

#[rstest]
#[case::root("/", 404)]
#[case::neighbour("/admitted", 404)]
#[case::entry("/admit/required", 200)]
#[tokio::test]
async fn only_its_own_path_is_answered(#[case] path: &str, #[case] status: u16) {
    let shell = Shell::start().await;
    let (answered, _) = shell.post(shell.admission, path, review(&json!({})).to_string()).await;
    assert_eq!(answered, status);
}

#[tokio::test]
async fn a_probe_is_answered_whatever_its_pod_looks_like() {
    let shell = Shell::start().await;
    let (_, body) = shell.post(shell.admission, "/admit/probe", review(&json!({})).to_string()).await;
    let response = serde_json::from_str::<Value>(&body).unwrap()["response"].take();
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["message"], migrations_core::entries::probe::REACHED);
    assert!(shell.counts("migrations_admission_duration_seconds_count 0"), "it is no admission");
}

#[tokio::test]
async fn a_call_for_a_migrator_not_heard_of_yet_is_refused_until_later() {
    let shell = Shell::start().await;
    shell.view.restart_at(Some(40));
    let admit = async || {
        let body = review(&json!({})).to_string();
        let (_, body) = shell.post(shell.admission, "/admit/3f2c.9/7d1f.41", body).await;
        serde_json::from_str::<Value>(&body).unwrap()["response"].take()
    };
    let refused = admit().await;
    assert_eq!(refused["allowed"], false);
    assert_eq!(refused["status"]["code"], 503);
    assert_eq!(refused["status"]["details"]["retryAfterSeconds"], 1);
    assert!(refused["status"]["message"].as_str().unwrap().contains("with uid 7d1f"), "{refused}");

    // It came and went meanwhile.
    shell.view.advance(Some("42"));
    let admitted = admit().await;
    assert_eq!((&admitted["allowed"], &admitted["patch"]), (&json!(true), &Value::Null), "{admitted}");
}

#[tokio::test]
async fn another_method_is_refused() {
    let shell = Shell::start().await;
    let (agent, url) = (shell.agent(), format!("https://localhost:{}/admit", shell.admission));
    let status = tokio::task::spawn_blocking(move || agent.get(url).call().unwrap().status()).await.unwrap();
    assert_eq!(status, 405);
}

#[tokio::test]
async fn an_oversized_review_is_refused() {
    let shell = Shell::start().await;
    let (status, body) = shell.post(shell.admission, "/admit", vec![b' '; 4 * 1024 * 1024 + 1]).await;
    assert_eq!(status, 413);
    assert!(body.contains("larger than 4194304 bytes"), "{body}");
    assert!(shell.counts(UNREADABLE));
}

#[tokio::test]
async fn a_review_of_more_values_than_a_pod_needs_is_refused() {
    let shell = Shell::start().await;
    let zeros = Value::from(vec![0; 1024 * 1024]);
    let object = review(&json!({"request": {"object": {"metadata": {"annotations": {}}, "zeros": zeros}}}));
    for body in [zeros.to_string(), object.to_string()] {
        let (status, body) = shell.post(shell.admission, "/admit", body).await;
        assert_eq!(status, 413);
        assert!(body.contains("no Pod needs that many"), "{body}");
    }
}

#[tokio::test]
async fn a_path_of_more_migrators_than_fit_into_one_is_refused() {
    let shell = Shell::start().await;
    let path = format!("/admit{}", "/a".repeat(512));
    assert_eq!(shell.post(shell.admission, &path, review(&json!({})).to_string()).await.0, 404);
}

#[tokio::test]
async fn a_large_review_within_the_limit_is_answered() {
    let padding = "x".repeat(3 * 1024 * 1024);
    let response =
        admit(true, &json!({"request": {"object": {"metadata": {"annotations": {"padding": padding}}}}}))
            .await;
    assert_eq!(response["patchType"], "JSONPatch");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let shell = Shell::start().await;
    let (chain, key) = crate::shell::pair();
    let body = review(&json!({})).to_string();
    assert_eq!(shell.post(shell.admission, "/admit", body.as_str()).await.0, 200);
    shell.certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
    let (agent, url) = (shell.agent(), format!("https://localhost:{}/admit", shell.admission));
    let result = tokio::task::spawn_blocking(move || agent.post(url).send(body)).await.unwrap();
    assert!(result.is_err(), "the old certificate is still shown");
}
