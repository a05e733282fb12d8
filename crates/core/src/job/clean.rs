//! From a workload's Pod template to the Pod spec of a run, rule by rule (contract §4). A template
//! says how to serve; a run must not serve, wait, or take a serving Pod's place.

use std::collections::BTreeMap;

use migrations_api::names;
use serde_json::{Map, Value, json};

use super::{containers, placement, volumes};
use crate::validate::{Refusal, Valid};

/// Fields of a Pod spec that place, name or time one serving Pod, or that the API server works out
/// from others.
const DROPPED_FROM_POD: [&str; 13] = [
    "activeDeadlineSeconds",
    "ephemeralContainers",
    "hostname",
    "hostnameOverride",
    "nodeName",
    "overhead",
    "preemptionPolicy",
    "priority",
    "readinessGates",
    "restartPolicy",
    "schedulingGates",
    "setHostnameAsFQDN",
    "subdomain",
];

/// Tolerations that admission adds to every Pod, for as many seconds.
const ADMISSION_TOLERATIONS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const ADMISSION_TOLERATION_SECONDS: i64 = 300;

/// The Pod spec of a run.
pub(super) struct Cleaned {
    /// The spec.
    pub(super) spec: Map<String, Value>,
    /// Claims of a StatefulSet that it has empty directories for.
    pub(super) emptied_claims: Vec<String>,
}

/// Cleans the Pod spec of a template of that namespace, or says why no run can be made of it.
pub(super) fn pod_spec(
    valid: &Valid,
    template: &Value,
    namespace: &str,
    hide_output: bool,
) -> Result<Cleaned, Refusal> {
    let mut spec = template.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in DROPPED_FROM_POD {
        spec.remove(field);
    }
    if template.get("kind") == Some(&json!("Pod")) {
        drop_admission_tolerations(&mut spec);
    }
    let left_out = containers::arrange(&mut spec, valid, hide_output)?;
    let emptied_claims = volumes::clean(&mut spec, &left_out);
    placement::ignore_own_pods(&mut spec, &labels_of(template), namespace);

    set_service_account(&mut spec, valid.run.service_account_name.as_deref());
    if let Some(seconds) = valid.run.active_deadline_seconds {
        // Not the Job's: that one deletes the Pod, and its log with it.
        spec.insert("activeDeadlineSeconds".to_owned(), json!(seconds));
    }
    spec.insert("restartPolicy".to_owned(), json!("Never"));
    spec.insert("readinessGates".to_owned(), json!([{ "conditionType": names::NEVER_READY_GATE }]));
    Ok(Cleaned { spec, emptied_claims })
}

/// They are added to the run's Pod again, as the cluster has them by then.
fn drop_admission_tolerations(spec: &mut Map<String, Value>) {
    let added = |toleration: &Value| {
        let key = toleration.get("key").and_then(Value::as_str).unwrap_or_default();
        ADMISSION_TOLERATIONS.contains(&key)
            && toleration.get("tolerationSeconds") == Some(&json!(ADMISSION_TOLERATION_SECONDS))
    };
    if let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") {
        tolerations.retain(|toleration| !added(toleration));
    }
}

/// The API server keeps the deprecated name of the field equal to today's. Templates of custom kinds
/// may have the old one alone.
fn set_service_account(spec: &mut Map<String, Value>, wanted: Option<&str>) {
    let alias = spec.remove("serviceAccount");
    if let Some(wanted) = wanted {
        spec.insert("serviceAccountName".to_owned(), json!(wanted));
    } else if let Some(alias) = alias {
        spec.entry("serviceAccountName").or_insert(alias);
    }
}

fn labels_of(template: &Value) -> BTreeMap<String, String> {
    let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

pub(super) fn name_of(value: &Value) -> Option<&str> {
    value.get("name").and_then(Value::as_str)
}
