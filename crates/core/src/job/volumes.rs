//! The volumes of a run (contract §4): those of its containers, save what belongs to one serving Pod.

use std::collections::BTreeSet;

use migrations_api::names;
use serde_json::{Map, Value, json};

use super::clean::name_of;

/// Start of the names of volumes that the API server makes for service account tokens.
const GENERATED_VOLUME: &str = "kube-api-access-";

/// Both ways in which a container uses a volume.
const USES: [&str; 2] = ["volumeMounts", "volumeDevices"];

/// Cleans the volumes, and the mounts of the run's containers. A mount without a volume is of a
/// StatefulSet's claim, which belongs to one serving Pod: the run gets an empty directory, and
/// nothing in place of a raw device. Returns the names of these claims' templates.
pub(super) fn clean(spec: &mut Map<String, Value>, left_out: &[Value]) -> Vec<String> {
    let run = ["containers", "initContainers"];
    let needed: BTreeSet<String> =
        run.iter().filter_map(|kind| spec.get(*kind)?.as_array()).flatten().flat_map(used).collect();
    // A claim that only a sidecar mounted must not hold up a run without it.
    let unneeded: BTreeSet<String> =
        left_out.iter().flat_map(used).filter(|name| !needed.contains(name)).collect();
    // Without the token mount, the API server has made no such volume: it is the user's own.
    let may_be_generated = spec.get("automountServiceAccountToken") != Some(&json!(false));

    let (mut known, mut dropped) = (BTreeSet::new(), BTreeSet::new());
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        volumes.retain(|volume| {
            let name = name_of(volume).unwrap_or_default();
            let generated = name.starts_with(GENERATED_VOLUME) && volume.get("projected").is_some();
            let drop =
                name == names::WAITER_VOLUME || (generated && may_be_generated) || unneeded.contains(name);
            if drop { &mut dropped } else { &mut known }.insert(name.to_owned());
            !drop
        });
    }
    let (mut emptied, mut told) = (BTreeSet::new(), BTreeSet::new());
    for kind in run {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            let claim = |name: &String| !known.contains(name) && !dropped.contains(name);
            emptied.extend(used_as("volumeMounts", container).filter(claim));
            told.extend(used(container).filter(claim));
            keep_uses(container, "volumeMounts", |name| !dropped.contains(name));
            keep_uses(container, "volumeDevices", |name| known.contains(name));
        }
    }
    if !emptied.is_empty() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Value::Array(volumes) = volumes {
            volumes.extend(emptied.iter().map(|name| json!({ "name": name, "emptyDir": {} })));
        }
    }
    told.into_iter().collect()
}

/// Names of the volumes that a container uses.
fn used(container: &Value) -> impl Iterator<Item = String> {
    USES.iter().flat_map(|field| used_as(field, container))
}

fn used_as(field: &str, container: &Value) -> impl Iterator<Item = String> {
    let uses = container.get(field).and_then(Value::as_array).into_iter().flatten();
    uses.filter_map(|one| name_of(one).map(str::to_owned))
}

fn keep_uses(container: &mut Value, field: &str, keep: impl Fn(&str) -> bool) {
    if let Some(Value::Array(uses)) = container.get_mut(field) {
        uses.retain(|one| name_of(one).is_none_or(&keep));
    }
}
