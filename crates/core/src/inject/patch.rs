//! An injection as a JSON patch that touches only what it adds, and nothing where it is in place.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, ReplaceOperation};
use serde::Serialize;
use serde_json::{Value, json};

use super::pod::Pod;
use super::waiter::CONTENT_VARIABLE;
use super::{Injection, names};

/// The patch that brings `injection` into `pod`. Waiters come first, in their order; one that is
/// there already is rewritten where it stands, never doubled or moved.
pub fn patch(pod: &Value, injection: &Injection) -> Patch {
    let pod = Pod(pod);
    let Injection { containers, volume, annotations } = injection;
    let (mut operations, mut missing) = (Vec::new(), Vec::new());
    for container in containers {
        let wanted = value_of(container);
        match position(pod.init_containers(), &container.name) {
            Some((_, present)) if content(present) == content(&wanted) => {}
            Some((index, _)) => operations.push(replace(&["spec", "initContainers", &index], wanted)),
            None => missing.push(wanted),
        }
    }
    // Replacements first: an addition at the front moves what their indices speak of.
    operations.extend(additions(pod.0, "initContainers", missing, Place::Front));

    let wanted = value_of(volume);
    match position(pod.volumes(), names::WAITER_VOLUME) {
        Some((_, present)) if *present == wanted => {}
        Some((index, _)) => operations.push(replace(&["spec", "volumes", &index], wanted)),
        None => operations.extend(additions(pod.0, "volumes", vec![wanted], Place::Back)),
    }
    operations.extend(annotated(pod, annotations));
    Patch(operations)
}

/// Gives the Pod these annotations; the others stay.
fn annotated(pod: Pod<'_>, annotations: &BTreeMap<&'static str, String>) -> Vec<PatchOperation> {
    if !annotations.is_empty() && !pod.0["metadata"]["annotations"].is_object() {
        return vec![add(&["metadata", "annotations"], json!(annotations))];
    }
    let missing = annotations.iter().filter(|(name, value)| pod.annotation(name) != Some(value.as_str()));
    missing.map(|(name, value)| add(&["metadata", "annotations", name], json!(value))).collect()
}

#[derive(Clone, Copy)]
enum Place {
    Front,
    Back,
}

/// Adds `items` to a list of the Pod's spec, which may not be there yet.
fn additions(pod: &Value, list: &str, items: Vec<Value>, place: Place) -> Vec<PatchOperation> {
    if items.is_empty() {
        return Vec::new();
    }
    if !pod["spec"][list].is_array() {
        return vec![add(&["spec", list], json!(items))];
    }
    let at = |index: usize| match place {
        Place::Front => index.to_string(),
        Place::Back => "-".to_owned(),
    };
    items.into_iter().enumerate().map(|(index, item)| add(&["spec", list, &at(index)], item)).collect()
}

fn position<'a>(list: &'a [Value], name: &str) -> Option<(String, &'a Value)> {
    let index = list.iter().position(|item| item["name"] == name)?;
    Some((index.to_string(), list.get(index)?))
}

/// The hash that an injected container carries of itself.
fn content(container: &Value) -> Option<&str> {
    let variables = container["env"].as_array()?;
    variables.iter().find(|variable| variable["name"] == CONTENT_VARIABLE)?["value"].as_str()
}

/// Kubernetes' own types have no keys that JSON lacks, so there is no error to pass on; `null` in
/// a patch would be refused by the API server.
fn value_of(item: &impl Serialize) -> Value {
    serde_json::to_value(item).unwrap_or_default()
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

fn replace(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}
