//! The webhook entries (contract §7): which Pods admission sends to the operator. One per Migrator,
//! spread over a fixed set of shipped configurations, and one for Pods annotated as required.

use std::collections::BTreeMap;

use migrations_api::{MigratorSpec, MigratorStatus, RerunOn, names};
use serde_json::{Value, json};

/// Where the API server reaches the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Namespace of the webhook's Service.
    pub namespace: String,
    /// The certificates it may serve with, PEM in base64.
    pub ca_bundle: String,
}

/// What an entry is made from.
#[derive(Clone, Copy, Debug)]
pub struct Gated<'a> {
    /// Uid of the Migrator.
    pub uid: &'a str,
    /// Namespace of the Migrator.
    pub namespace: &'a str,
    /// Its spec, known to be valid.
    pub spec: &'a MigratorSpec,
    /// Its status.
    pub status: Option<&'a MigratorStatus>,
    /// Opened by hand: nothing is asked for.
    pub open: bool,
}

/// Namespaces whose Pods admission never holds: the cluster's own and the operator's.
pub fn is_excluded(namespace: &str, operator_namespace: &str) -> bool {
    namespace == "kube-system" || namespace == operator_namespace
}

/// The desired entries of every shipped configuration, by its name.
pub fn configurations<'a>(
    migrators: impl IntoIterator<Item = Gated<'a>>,
    endpoint: &Endpoint,
) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> =
        (0..names::ENTRY_SHARDS).map(|shard| (names::entry_configuration(shard), Vec::new())).collect();
    all.insert(names::REQUIRED_CONFIGURATION.to_owned(), vec![required_entry(endpoint)]);
    for gated in migrators.into_iter().filter(|gated| !gated.open) {
        let entries = all.entry(names::entry_configuration(shard(gated.uid))).or_default();
        entries.push(entry(gated, endpoint));
    }
    for entries in all.values_mut() {
        entries.sort_by(|one, other| name_of(one).cmp(name_of(other)));
    }
    all
}

/// Whether the entries in place are not those desired. What the API server or a platform added to
/// an entry is left to it.
pub fn differ(in_place: &[Value], desired: &[Value]) -> bool {
    in_place.len() != desired.len()
        || !desired.iter().zip(in_place).all(|(desired, found)| within(desired, found))
}

/// Name of a Migrator's entry.
pub fn entry_name(uid: &str) -> String {
    format!("{uid}.{}", names::GROUP)
}

/// Which configuration an entry is in: stable, and even over many.
fn shard(uid: &str) -> usize {
    uid.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)))
        % names::ENTRY_SHARDS
}

/// The entry of one Migrator. It fails closed, so it must ask for as little as it can: an outage of
/// the operator holds back what it asks for, and nothing else.
fn entry(gated: Gated<'_>, endpoint: &Endpoint) -> Value {
    let Gated { uid, namespace, spec, status, open: _ } = gated;
    let mut conditions = vec![without_no_wait()];
    let done = status.map(|status| status.done.as_slice()).unwrap_or_default();
    let by_image = spec.template_selector.is_none() && spec.rerun_on.unwrap_or_default() == RerunOn::Image;
    if !done.is_empty() && by_image {
        let images: Vec<_> = done.iter().map(|done| &done.key).collect();
        conditions.push(json!({
            "name": "image-not-done",
            "expression": not_done(spec.container.as_deref(), &json!(images).to_string()),
        }));
    }
    webhook(
        &entry_name(uid),
        &format!("/admit/{uid}"),
        endpoint,
        &json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } }),
        &json!(spec.selector),
        &conditions,
    )
}

/// The entry for Pods that ask to be held even while there is no Migrator: how a first install is
/// gated whatever the order of objects.
fn required_entry(endpoint: &Endpoint) -> Value {
    let excluded = ["kube-system", &endpoint.namespace];
    let namespaces = json!({ "matchExpressions": [
        { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded },
    ]});
    let required = json!({ "name": "required", "expression": annotated(names::REQUIRED_ANNOTATION) });
    webhook(
        &format!("required.{}", names::GROUP),
        "/admit/required",
        endpoint,
        &namespaces,
        &json!({}),
        &[required, without_no_wait()],
    )
}

fn webhook(
    name: &str,
    path: &str,
    endpoint: &Endpoint,
    namespaces: &Value,
    objects: &Value,
    conditions: &[Value],
) -> Value {
    json!({
        "name": name,
        "clientConfig": {
            "caBundle": endpoint.ca_bundle,
            "service": {
                "namespace": endpoint.namespace,
                "name": names::WEBHOOK_SERVICE,
                "path": path,
                "port": names::ADMISSION_PORT,
            },
        },
        "rules": [{
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "operations": ["CREATE"],
            "resources": ["pods"],
            "scope": "Namespaced",
        }],
        "namespaceSelector": namespaces,
        "objectSelector": objects,
        "matchConditions": conditions,
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 5,
    })
}

/// Pods of runs carry the annotation too.
fn without_no_wait() -> Value {
    json!({ "name": "may-wait", "expression": format!("!({})", annotated(names::NO_WAIT_ANNOTATION)) })
}

/// CEL: the annotation is "true". An expression that fails would refuse the Pod, so every step is
/// guarded.
fn annotated(name: &str) -> String {
    format!(
        "has(object.metadata.annotations) && '{name}' in object.metadata.annotations && \
         object.metadata.annotations['{name}'] == 'true'"
    )
}

/// CEL: the key container's image is none of `images`, a JSON list, which is a CEL list as well.
fn not_done(container: Option<&str>, images: &str) -> String {
    match container.filter(|name| !name.is_empty()) {
        Some(name) => format!(
            "!object.spec.containers.exists(c, c.name == {} && has(c.image) && c.image in {images})",
            json!(name)
        ),
        None => format!(
            "!(size(object.spec.containers) > 0 && has(object.spec.containers[0].image) && \
             object.spec.containers[0].image in {images})"
        ),
    }
}

/// Whether everything in `desired` is in `found`, which may say more.
fn within(desired: &Value, found: &Value) -> bool {
    match (desired, found) {
        (Value::Object(desired), Value::Object(found)) => {
            desired.iter().all(|(key, value)| found.get(key).is_some_and(|it| within(value, it)))
        }
        (Value::Array(desired), Value::Array(found)) => {
            desired.len() == found.len() && desired.iter().zip(found).all(|(one, other)| within(one, other))
        }
        (desired, found) => desired == found,
    }
}

fn name_of(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations_api::{DoneKey, How};
    use rstest::rstest;

    fn endpoint() -> Endpoint {
        Endpoint { namespace: "migrations-operator".to_owned(), ca_bundle: "Q0E=".to_owned() }
    }

    fn spec(value: Value) -> MigratorSpec {
        serde_json::from_value(value).unwrap()
    }

    fn entries(spec: &MigratorSpec, status: Option<&MigratorStatus>) -> Vec<Value> {
        let gated = Gated { uid: "7d1f", namespace: "shop", spec, status, open: false };
        let mut all = configurations([gated], &endpoint());
        all.remove(&names::entry_configuration(shard("7d1f"))).unwrap()
    }

    fn done(images: &[&str]) -> MigratorStatus {
        let key = |image: &&str| DoneKey::new((*image).to_owned(), (*image).to_owned(), How::Succeeded);
        MigratorStatus { done: images.iter().map(key).collect(), ..MigratorStatus::default() }
    }

    #[test]
    fn an_entry_asks_for_the_pods_that_its_migrator_selects() {
        let spec = spec(json!({ "selector": { "matchLabels": { "app": "web" } }, "container": "app" }));
        insta::assert_json_snapshot!(entries(&spec, Some(&done(&["shop:v1", "it's \"odd\"\\"]))));
    }

    #[test]
    fn every_shipped_configuration_is_spoken_of() {
        let all = configurations([], &endpoint());
        assert_eq!(all.len(), names::ENTRY_SHARDS + 1);
        assert!(
            all.iter().all(|(name, entries)| entries.is_empty() != (name == names::REQUIRED_CONFIGURATION))
        );
    }

    #[rstest]
    #[case::followers(json!({ "templateSelector": { "matchLabels": { "role": "leader" } } }))]
    #[case::rerun_on_template(json!({ "rerunOn": "Template" }))]
    fn nobody_is_let_past_by_an_image_that_is_not_all_they_wait_for(#[case] more: Value) {
        let mut whole = json!({ "selector": { "matchLabels": { "app": "web" } } });
        json_patch::merge(&mut whole, &more);
        let spec = spec(whole);
        assert!(!entries(&spec, Some(&done(&["shop:v1"])))[0].to_string().contains("image-not-done"));
    }

    #[test]
    fn an_open_gate_asks_for_nothing() {
        let spec = spec(json!({ "selector": { "matchLabels": { "app": "web" } } }));
        let gated = Gated { uid: "7d1f", namespace: "shop", spec: &spec, status: None, open: true };
        assert!(configurations([gated], &endpoint())[&names::entry_configuration(shard("7d1f"))].is_empty());
    }

    #[test]
    fn what_a_platform_added_is_no_difference_but_a_change_is() {
        let spec = spec(json!({ "selector": { "matchLabels": { "app": "web" } } }));
        let desired = entries(&spec, None);
        let mut found = desired.clone();
        found[0]["namespaceSelector"]["matchExpressions"] =
            json!([{ "key": "control-plane", "operator": "DoesNotExist" }]);
        assert!(!differ(&found, &desired));
        found[0]["failurePolicy"] = json!("Ignore");
        assert!(differ(&found, &desired));
        assert!(differ(&[], &desired));
    }
}
