//! An injection as a JSON patch that touches only what it adds, and nothing where it is in place.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use k8s_openapi::api::core::v1::{Container, Volume};
use serde::Serialize;
use serde_json_borrow::Value;

use super::pod::{Pod, is_named};
use super::waiter::CONTENT_VARIABLE;
use super::{Injection, names};

/// Operations of RFC 6902, in their order. Their values are written as they are, without a copy: to
/// write them is most of the work of an injection.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Patch<'a>(Vec<Operation<'a>>);

impl Patch<'_> {
    /// Whether all is in place.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct Operation<'a> {
    op: &'static str,
    path: PointerBuf,
    value: Item<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Container(&'a Container),
    Containers(Vec<&'a Container>),
    Volume(&'a Volume),
    Volumes([&'a Volume; 1]),
    Annotation(&'a str),
    Annotations(&'a BTreeMap<&'static str, String>),
}

/// The patch that brings `injection` into `pod`. Waiters come first, in their order; one that is
/// there already is rewritten where it stands, never doubled or moved.
pub fn patch<'a>(pod: &Value<'_>, injection: &'a Injection) -> Patch<'a> {
    let pod = Pod(pod);
    let (mut operations, mut missing) = (Vec::new(), Vec::new());
    for wanted in &injection.containers {
        match position(pod.init_containers(), &wanted.name) {
            Some((_, present)) if present_content(present) == content(wanted) => {}
            Some((index, _)) => {
                operations.push(replace(&["spec", "initContainers", &index], Item::Container(wanted)));
            }
            None => missing.push(wanted),
        }
    }
    // Replacements first: an addition at the front moves what their indices speak of.
    if pod.spec().get("initContainers").is_array() {
        let at_front = |(index, wanted): (usize, _)| {
            add(&["spec", "initContainers", &index.to_string()], Item::Container(wanted))
        };
        operations.extend(missing.into_iter().enumerate().map(at_front));
    } else if !missing.is_empty() {
        operations.push(add(&["spec", "initContainers"], Item::Containers(missing)));
    }
    operations.extend(mounted(pod, injection.volume));
    operations.extend(annotated(pod, &injection.annotations));
    Patch(operations)
}

/// Gives the Pod the waiters' volume.
fn mounted<'a>(pod: Pod<'_>, wanted: &'a Volume) -> Option<Operation<'a>> {
    match position(pod.volumes(), names::WAITER_VOLUME) {
        Some((_, present)) if is(wanted, present) => None,
        Some((index, _)) => Some(replace(&["spec", "volumes", &index], Item::Volume(wanted))),
        None if pod.spec().get("volumes").is_array() => {
            Some(add(&["spec", "volumes", "-"], Item::Volume(wanted)))
        }
        None => Some(add(&["spec", "volumes"], Item::Volumes([wanted]))),
    }
}

/// Gives the Pod these annotations; the others stay.
fn annotated<'a>(pod: Pod<'_>, annotations: &'a BTreeMap<&'static str, String>) -> Vec<Operation<'a>> {
    if !annotations.is_empty() && !pod.metadata().get("annotations").is_object() {
        return vec![add(&["metadata", "annotations"], Item::Annotations(annotations))];
    }
    let missing = annotations.iter().filter(|(name, value)| pod.annotation(name) != Some(value.as_str()));
    missing.map(|(name, value)| add(&["metadata", "annotations", name], Item::Annotation(value))).collect()
}

fn position<'a>(list: &'a [Value<'a>], name: &str) -> Option<(String, &'a Value<'a>)> {
    let index = list.iter().position(|item| is_named(item, name))?;
    Some((index.to_string(), list.get(index)?))
}

/// The hash that an injected container carries of itself.
fn content(container: &Container) -> Option<&str> {
    let variable = container.env.as_ref()?.iter().find(|variable| variable.name == CONTENT_VARIABLE)?;
    variable.value.as_deref()
}

/// The same of one that is there.
fn present_content<'a>(container: &'a Value<'a>) -> Option<&'a str> {
    let variables = container.get("env").as_array()?;
    variables.iter().find(|variable| is_named(variable, CONTENT_VARIABLE))?.get("value").as_str()
}

/// Whether the volume that is there is this one, whatever the order of its fields.
fn is(wanted: &Volume, present: &Value<'_>) -> bool {
    serde_json::to_value(wanted).is_ok_and(|wanted| wanted == serde_json::Value::from(present))
}

fn add<'a>(path: &[&str], value: Item<'a>) -> Operation<'a> {
    Operation { op: "add", path: PointerBuf::from_tokens(path.iter().copied()), value }
}

fn replace<'a>(path: &[&str], value: Item<'a>) -> Operation<'a> {
    Operation { op: "replace", path: PointerBuf::from_tokens(path.iter().copied()), value }
}
