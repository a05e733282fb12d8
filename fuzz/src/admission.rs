//! An admission review, from its bytes to the patched Pod.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::Pod;
use migrations_api::names;
use migrations_core::inject::{Resources, UnsupportedPods};
use migrations_protocol::Arguments;
use migrations_webhook::admission::Admission;
use migrations_webhook::metrics::Metrics;
use migrations_webhook::settings::InForce;
use migrations_webhook::turns::Turns;
use migrations_webhook::view::View;
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

/// The Migrators of namespace `default`, in the order of their names.
const MIGRATORS: [&str; 4] = ["blog", "done", "open", "shop"];

/// Annotations that admission may change: where meshes read which ports to leave alone.
const ANNOTATIONS: [&str; 2] =
    ["traffic.sidecar.istio.io/excludeOutboundPorts", "config.linkerd.io/skip-outbound-ports"];

thread_local! {
    static WEBHOOK: (Runtime, Admission) = (
        Builder::new_current_thread().enable_time().build().expect("a runtime"),
        webhook(),
    );
}

/// Nothing panics; what is answered names the request; a patch fits its Pod, leaves a valid one valid,
/// adds nothing but waiters with what they need, and is not needed twice.
pub fn check(body: &[u8]) {
    let (status, answer) = admit(body.to_vec());
    if status != StatusCode::OK {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&answer));
        return;
    }
    // What nobody reads may be no text.
    let Ok(review) = serde_json::from_slice::<Value>(body) else { return };
    if serde_json::from_slice(body).is_ok_and(|review| says_twice(&review)) {
        return;
    }
    let response = response(&answer, &review);
    if response["allowed"] != true {
        assert!(response["patch"].is_null(), "{response}");
        let message = response["status"]["message"].as_str().expect("a refusal says why");
        assert!(message.contains(names::REQUIRED_ANNOTATION), "{message}");
        return;
    }
    if response["patch"].is_null() {
        return;
    }
    let before = &review["request"]["object"];
    if !sendable(before) {
        return;
    }
    let after = patched(before, &response);
    assert_eq!(without_ours(before), without_ours(&after), "something else was touched");
    expect_waiters(before, &after);
    if serde_json::from_value::<Pod>(before.clone()).is_ok() {
        serde_json::from_value::<Pod>(after.clone()).expect("still a Pod");
    }

    let mut again = review.clone();
    again["request"]["object"] = after;
    let (status, answer) = admit(again.to_string().into_bytes());
    assert_eq!(status, StatusCode::OK);
    let second = self::response(&answer, &again);
    assert!(second["patch"].is_null(), "patched twice: {second}");
}

/// Whether an object has two fields of one name, of which readers choose as they like. No API server
/// writes such.
fn says_twice(value: &serde_json_borrow::Value<'_>) -> bool {
    let fields: Vec<_> = value.iter_object().into_iter().flatten().collect();
    let names: HashSet<_> = fields.iter().map(|(name, _)| name).collect();
    names.len() < fields.len()
        || fields.iter().any(|(_, value)| says_twice(value))
        || value.iter_array().into_iter().flatten().any(says_twice)
}

/// Whether the answer to this review is a patch.
pub fn patches(body: &[u8]) -> bool {
    let (status, answer) = admit(body.to_vec());
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    status == StatusCode::OK && !answer["response"]["patch"].is_null()
}

fn webhook() -> Admission {
    let view = View::default();
    let apply = |name: &str, spec: Value, more: Value| {
        let mut object = json!({
            "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
            "metadata": { "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" }, "spec": spec,
        });
        json_patch::merge(&mut object, &more);
        view.apply(serde_json::from_value(object).expect("a Migrator, whatever is in it"));
    };
    let shop = json!({ "matchLabels": { "app": "shop" } });
    apply("shop", json!({ "selector": shop }), json!({}));
    let tiers =
        json!({ "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["web", "worker"] }] });
    let leaders = json!({ "matchLabels": { "tier": "web" } });
    apply("blog", json!({ "selector": tiers, "templateSelector": leaders }), json!({}));
    let status = json!({ "done": [{ "key": "shop:1", "image": "shop:1", "how": "Succeeded" }] });
    apply("done", json!({ "selector": shop, "container": "app" }), json!({ "status": status }));
    let open = json!({ "metadata": { "annotations": { names::OPEN_ANNOTATION: "true" } } });
    apply("open", json!({ "selector": shop }), open);
    apply("unreadable", json!({ "selector": "shop" }), json!({}));

    let resources = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
    let unsupported = UnsupportedPods::default();
    let settings =
        InForce::new(names::OPERATOR_NAMESPACE, "waiter:1".to_owned(), resources, unsupported, None);
    Admission { view, settings, turns: Turns::default(), metrics: Metrics::default() }
}

fn admit(body: Vec<u8>) -> (StatusCode, Bytes) {
    let request = Request::post(names::ADMIT_PATH).body(Full::new(Bytes::from(body))).expect("a request");
    WEBHOOK.with(|(runtime, webhook)| {
        runtime.block_on(async {
            let response = webhook.handle(request).await;
            let status = response.status();
            (status, response.into_body().collect().await.expect("it is in memory").to_bytes())
        })
    })
}

/// The response to this review and no other.
fn response(answer: &[u8], review: &Value) -> Value {
    let mut answer: Value = serde_json::from_slice(answer).expect("a review in JSON");
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&review["apiVersion"], &review["kind"]));
    assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
    answer["response"].take()
}

/// Whether the API server may send such a Pod: its lists are lists, and its spec is there.
fn sendable(pod: &Value) -> bool {
    let list = |name: &str| pod["spec"][name].is_array() || pod["spec"][name].is_null();
    let annotations = &pod["metadata"]["annotations"];
    pod["spec"].is_object()
        && pod["metadata"].is_object()
        && list("initContainers")
        && list("volumes")
        && (annotations.is_object() || annotations.is_null())
}

fn patched(pod: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = STANDARD.decode(response["patch"].as_str().expect("base64")).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).expect("a patch");
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("the patch fits the Pod");
    pod
}

fn is_ours(item: &Value) -> bool {
    item["name"] == names::WAITER_VOLUME
        || MIGRATORS.iter().any(|migrator| item["name"] == names::waiter_container(migrator))
}

/// The Pod with everything taken out that admission may add. An empty list and none are the same.
fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["initContainers", "volumes"] {
        if let Some(items) = pod["spec"][list].as_array_mut() {
            items.retain(|item| !is_ours(item));
        }
        drop_empty(&mut pod["spec"], list);
    }
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| !ANNOTATIONS.contains(&name.as_str()));
    }
    drop_empty(&mut pod["metadata"], "annotations");
    pod
}

fn drop_empty(object: &mut Value, field: &str) {
    let empty = match &object[field] {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if empty {
        object.as_object_mut().map(|fields: &mut Map<String, Value>| fields.remove(field));
    }
}

/// The waiters are there, ask what can be answered, and come first unless some were there before.
fn expect_waiters(before: &Value, after: &Value) {
    let waiters = |pod: &Value| -> Vec<Value> {
        let list = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        list.into_iter().filter(is_ours).collect()
    };
    let (old, new) = (waiters(before), waiters(after));
    assert!(!new.is_empty(), "a patch without a waiter");
    if old.is_empty() {
        let first = after["spec"]["initContainers"].as_array().expect("a list");
        assert_eq!(first[..new.len()], new, "a waiter isn't first");
        let names: Vec<_> = new.iter().map(|waiter| waiter["name"].as_str().expect("a name")).collect();
        assert!(names.is_sorted(), "{names:?}");
        for waiter in &new {
            let args: Vec<String> = serde_json::from_value(waiter["args"].clone()).expect("arguments");
            let arguments = Arguments::parse(args).expect("a waiter understands its arguments");
            assert!(MIGRATORS.contains(&arguments.migrator.as_str()));
        }
    }
    let volumes = after["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    assert!(volumes.iter().any(is_ours), "a waiter without its volume");
}
