//! Where a run may be scheduled (contract §4): wherever its source could be, as if none of the
//! source's own Pods were there; and on one node alone where a claim asks for that.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Map, Value, json};

use crate::selector::Selector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Drops required terms that select the source's own labels: waiting Pods must not keep the run from
/// a node. Preferred ones stay, since they never do.
pub(super) fn ignore_own_pods(
    spec: &mut Map<String, Value>,
    labels: &BTreeMap<String, String>,
    namespace: &str,
) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(rules) = spec.get_mut("affinity").and_then(|affinity| affinity.get_mut(kind)) else {
            continue;
        };
        if let Some(Value::Array(terms)) = rules.get_mut(REQUIRED) {
            for term in terms.iter_mut() {
                spell_out_label_keys(term, labels);
            }
            terms.retain(|term| !(covers(term, namespace) && selects(term, labels)));
        }
        for preferred in rules.get_mut(PREFERRED).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(term) = preferred.get_mut("podAffinityTerm") {
                spell_out_label_keys(term, labels);
            }
        }
    }
    if let Some(Value::Array(constraints)) = spec.get_mut("topologySpreadConstraints") {
        for constraint in constraints.iter_mut() {
            spell_out_label_keys(constraint, labels);
        }
        // What is not said is `DoNotSchedule` in no kind, but custom kinds may leave it out.
        let required =
            |constraint: &Value| constraint.get("whenUnsatisfiable") != Some(&json!("ScheduleAnyway"));
        constraints.retain(|constraint| !(required(constraint) && selects(constraint, labels)));
    }
}

/// Pins the run to a node: in each of the terms of its node affinity, of which one has to hold.
pub(super) fn pin(spec: &mut Map<String, Value>, node: &str) {
    let on_node = json!({ "key": "metadata.name", "operator": "In", "values": [node] });
    let path = ["nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    let affinity = spec.entry("affinity").or_insert(Value::Null);
    // Indexing makes what is missing; what is there is checked by the API server.
    let terms = path.iter().try_fold(affinity, |value, field| match value {
        Value::Null => Some(&mut value[*field]),
        Value::Object(fields) => Some(fields.entry(*field).or_insert(Value::Null)),
        _ => None,
    });
    match terms {
        Some(Value::Array(terms)) => {
            // An empty term matches no node; with the field it would match this one.
            let terms = terms.iter_mut().filter_map(Value::as_object_mut).filter(|term| !term.is_empty());
            for term in terms {
                if let Value::Array(fields) = term.entry("matchFields").or_insert_with(|| json!([])) {
                    fields.push(on_node.clone());
                }
            }
        }
        Some(missing @ Value::Null) => *missing = json!([{ "matchFields": [on_node] }]),
        _ => {}
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` stand for the Pod's own values, and the run has not the
/// source's labels: they become expressions, as the API server makes them for a Pod.
fn spell_out_label_keys(term: &mut Value, labels: &BTreeMap<String, String>) {
    let Some(term) = term.as_object_mut() else { return };
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let Some(Value::Array(keys)) = term.remove(field) else { continue };
        let pairs = keys.iter().filter_map(|key| labels.get_key_value(key.as_str()?));
        for (key, value) in pairs {
            let Some(Value::Object(selector)) = term.get_mut("labelSelector") else { break };
            let expression = json!({ "key": key, "operator": operator, "values": [value] });
            let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
            if let Value::Array(expressions) = expressions
                && !expressions.contains(&expression)
            {
                expressions.push(expression);
            }
        }
    }
}

/// Whether an affinity term looks at the source's namespace. One that selects namespaces by their
/// labels might.
fn covers(term: &Value, namespace: &str) -> bool {
    let named = term.get("namespaces").and_then(Value::as_array).filter(|names| !names.is_empty());
    let by_labels = term.get("namespaceSelector").is_some_and(|selector| !selector.is_null());
    by_labels || named.is_none_or(|names| names.contains(&json!(namespace)))
}

/// Whether the term's selector selects these labels; one that can't be read might. None at all
/// selects nothing, an empty one everything.
fn selects(term: &Value, labels: &BTreeMap<String, String>) -> bool {
    let Some(selector) = term.get("labelSelector").filter(|selector| !selector.is_null()) else {
        return false;
    };
    let parsed = serde_json::from_value::<LabelSelector>(selector.clone());
    match parsed.map(|selector| Selector::parse(&selector)) {
        Ok(Ok(selector)) => selector.matches(labels),
        _ => true,
    }
}
