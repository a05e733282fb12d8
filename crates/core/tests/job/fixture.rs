//! Runs of a Pod template with one container, `app`, labelled `app: shop`, and what a case adds.

use migrations_core::job::{Rendered, RunIdentity, render, run_hash};
use migrations_core::snapshot::Snapshot;
use migrations_core::validate::{Refusal, Valid, validate};
use serde_json::{Value, json};

use crate::world::World;

/// A Migrator's spec of that selector, and what a case adds.
pub(crate) fn valid(spec: Value) -> Valid {
    let whole = with(json!({ "selector": { "matchLabels": { "app": "shop" } } }), spec);
    validate(&serde_json::from_value(whole).unwrap()).unwrap()
}

/// The Pod template: `spec` is added to its Pod spec, `container` to its one container.
pub(crate) fn template(spec: Value, container: Value) -> Value {
    let container = with(json!({ "name": "app", "image": "shop:v1" }), container);
    json!({
        "metadata": { "labels": { "app": "shop" } },
        "spec": with(json!({ "containers": [container] }), spec),
    })
}

pub(crate) fn run(migrator: Value, snapshot: &Snapshot, template: &Value) -> Result<Rendered, Refusal> {
    let valid = valid(migrator);
    let run =
        RunIdentity { key: "shop:v1".to_owned(), attempt: 1, run_hash: run_hash(&valid, template, None) };
    render(&valid, snapshot, template, &run)
}

pub(crate) fn job(migrator: Value, template: &Value) -> Value {
    run(migrator, &World::new().snapshot(), template).unwrap().job
}

/// The Pod spec of the run.
pub(crate) fn pod_spec(migrator: Value, template: &Value) -> Value {
    job(migrator, template)["spec"]["template"]["spec"].take()
}

/// The Pod spec of the run of a Migrator that says nothing of it.
pub(crate) fn cleaned(spec: Value, container: Value) -> Value {
    pod_spec(json!({}), &template(spec, container))
}

/// The run's container, of a template whose container has `container` added.
pub(crate) fn migration(migrator: Value, container: Value) -> Value {
    pod_spec(migrator, &template(json!({}), container))["containers"][0].take()
}

/// `object` with the fields of `more`.
pub(crate) fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}
