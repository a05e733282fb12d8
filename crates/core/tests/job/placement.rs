//! Affinity and spread: waiting Pods must not keep the run from a node.

use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{pod_spec, template};

/// The selector of the source's own labels, `app: shop` and `tenant: a`.
fn own() -> Value {
    json!({ "matchLabels": { "app": "shop" } })
}

fn others() -> Value {
    json!({ "matchLabels": { "app": "other" } })
}

fn placed(spec: Value) -> Value {
    let mut template = template(spec, json!({}));
    template["metadata"]["labels"] = json!({ "app": "shop", "tenant": "a" });
    pod_spec(json!({}), &template)
}

/// What is left of one required term of each kind of affinity.
fn affinity(term: &Value) -> [usize; 2] {
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
    let spec = placed(json!({ "affinity": { "podAffinity": required, "podAntiAffinity": required } }));
    ["podAffinity", "podAntiAffinity"].map(|kind| {
        let path = format!("/affinity/{kind}/requiredDuringSchedulingIgnoredDuringExecution");
        spec.pointer(&path).unwrap().as_array().unwrap().len()
    })
}

#[rstest]
#[case::own_labels(json!({ "labelSelector": own() }), 0)]
#[case::everything(json!({ "labelSelector": {} }), 0)]
#[case::of_the_same_tenant(json!({ "labelSelector": own(), "matchLabelKeys": ["tenant"] }), 0)]
#[case::of_the_same_revision(json!({ "labelSelector": own(), "matchLabelKeys": ["pod-template-hash"] }), 0)]
#[case::of_every_tenant(json!({ "labelSelector": { "matchExpressions": [{ "key": "tenant", "operator": "Exists" }] } }), 0)]
#[case::in_this_namespace(json!({ "labelSelector": own(), "namespaces": ["default"] }), 0)]
#[case::in_selected_namespaces(json!({ "labelSelector": own(), "namespaces": ["x"], "namespaceSelector": {} }), 0)]
#[case::unreadable(json!({ "labelSelector": { "matchExpressions": [{ "key": "app", "operator": "Future" }] } }), 0)]
#[case::others(json!({ "labelSelector": others() }), 1)]
#[case::nothing(json!({}), 1)]
#[case::of_other_tenants(json!({ "labelSelector": own(), "mismatchLabelKeys": ["tenant"] }), 1)]
#[case::in_another_namespace(json!({ "labelSelector": own(), "namespaces": ["other"] }), 1)]
fn required_terms_that_select_the_sources_own_labels_are_dropped(#[case] term: Value, #[case] left: usize) {
    assert_eq!(affinity(&term), [left, left]);
}

#[test]
fn preferred_terms_stay() {
    let preferred =
        json!([{ "weight": 1, "podAffinityTerm": { "labelSelector": own(), "topologyKey": "node" } }]);
    let rules = json!({ "preferredDuringSchedulingIgnoredDuringExecution": preferred });
    let affinity = json!({ "podAntiAffinity": rules, "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {} } });
    assert_eq!(placed(json!({ "affinity": affinity }))["affinity"], affinity);
}

/// They would stand for the run's own labels, which aren't the source's.
#[rstest]
#[case::same("matchLabelKeys", "In")]
#[case::different("mismatchLabelKeys", "NotIn")]
fn label_keys_of_terms_that_stay_are_spelled_out(#[case] field: &str, #[case] operator: &str) {
    let spelled = json!({ "key": "tenant", "operator": operator, "values": ["a"] });
    // As of a bare Pod, for which the API server has spelled it out already.
    for before in [json!([]), json!([spelled])] {
        let selector = json!({ "matchLabels": { "app": "other" }, "matchExpressions": before });
        let term = json!({ "labelSelector": selector, field: ["tenant", "absent"] });
        let preferred = json!({ "podAffinityTerm": term });
        let spec = placed(json!({ "affinity": { "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [term],
            "preferredDuringSchedulingIgnoredDuringExecution": [preferred],
        } }, "topologySpreadConstraints": [term] }));
        let selector = json!({ "matchLabels": { "app": "other" }, "matchExpressions": [spelled] });
        let expected = json!({ "labelSelector": selector });
        let rules = &spec["affinity"]["podAntiAffinity"];
        assert_eq!(rules["requiredDuringSchedulingIgnoredDuringExecution"][0], expected);
        assert_eq!(rules["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"], expected);
        assert_eq!(spec["topologySpreadConstraints"][0], expected);
    }
}

#[rstest]
#[case::own_required("DoNotSchedule", own(), 0)]
#[case::own_preferred("ScheduleAnyway", own(), 1)]
#[case::others_required("DoNotSchedule", others(), 1)]
fn required_spread_over_the_sources_own_labels_is_dropped(
    #[case] when: &str,
    #[case] selector: Value,
    #[case] left: usize,
) {
    let constraint = json!({ "whenUnsatisfiable": when, "labelSelector": selector });
    let spec = placed(json!({ "topologySpreadConstraints": [constraint] }));
    assert_eq!(spec["topologySpreadConstraints"].as_array().unwrap().len(), left);
}
