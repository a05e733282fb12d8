//! The match conditions of entries, in CEL. An expression that fails would refuse the Pod, so every
//! step is guarded.

use std::collections::{BTreeMap, BTreeSet};

use migrations_api::{RerunOn, names};
use serde_json::{Value, json};

use super::Gated;

/// How many images of a Migrator are skipped, the newest: the API server refuses an expression of more
/// than 100,000 characters. Pods of others are let past by the webhook.
pub(super) const MOST_IMAGES: usize = 40;

/// Which Pods an entry asks for that Migrators share: those that one of them at least holds.
pub(super) fn of_migrators(sharing: &[Gated<'_>]) -> Vec<Value> {
    let mut conditions = vec![may_wait()];
    conditions.extend(image_not_done(sharing));
    conditions
}

/// The Pod is annotated as required, and would wait.
pub(super) fn required() -> Vec<Value> {
    vec![condition("required", &annotated(names::REQUIRED_ANNOTATION)), may_wait()]
}

/// Pods of runs carry the annotation too.
fn may_wait() -> Value {
    condition("may-wait", &format!("!({})", annotated(names::NO_WAIT_ANNOTATION)))
}

fn condition(name: &str, expression: &str) -> Value {
    json!({ "name": name, "expression": expression })
}

fn annotated(name: &str) -> String {
    format!(
        "has(object.metadata) && has(object.metadata.annotations) && '{name}' in object.metadata.annotations && \
         object.metadata.annotations['{name}'] == 'true'"
    )
}

/// A Pod is skipped whose image is done for every Migrator that shares the entry. None where one of
/// them lets nobody past by an image.
fn image_not_done(sharing: &[Gated<'_>]) -> Option<Value> {
    // What is done for all that look at the same container.
    let mut done: BTreeMap<Option<&str>, BTreeSet<&str>> = BTreeMap::new();
    for gated in sharing {
        let images = done_images(gated);
        let container = gated.spec.container.as_deref().filter(|name| !name.is_empty());
        done.entry(container).and_modify(|all| all.retain(|image| images.contains(image))).or_insert(images);
    }
    if done.values().any(BTreeSet::is_empty) {
        return None;
    }
    let parts: Vec<_> = done.iter().map(|(container, images)| not_in(*container, &json!(images))).collect();
    Some(condition("image-not-done", &parts.join(" || ")))
}

/// Images whose Pods the Migrator doesn't hold, whatever else they are.
fn done_images<'a>(gated: &Gated<'a>) -> BTreeSet<&'a str> {
    let spec = gated.spec;
    if spec.template_selector.is_some() || spec.rerun_on.unwrap_or_default() != RerunOn::Image {
        return BTreeSet::new();
    }
    let done = gated.status.into_iter().flat_map(|status| &status.done);
    done.take(MOST_IMAGES).map(|done| done.key.as_str()).collect()
}

/// The key container's image is none of `images`: a JSON list is a CEL list as well.
fn not_in(container: Option<&str>, images: &Value) -> String {
    let has_containers = "has(object.spec) && has(object.spec.containers)";
    match container {
        Some(name) => format!(
            "!({has_containers} && object.spec.containers.exists(c, has(c.name) && c.name == {} && \
             has(c.image) && c.image in {images}))",
            json!(name)
        ),
        None => format!(
            "!({has_containers} && size(object.spec.containers) > 0 && \
             has(object.spec.containers[0].image) && object.spec.containers[0].image in {images})"
        ),
    }
}
