//! Entries as they stand in the cluster against those desired: what is kept of them, whether they
//! differ, and how often they are put right again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Caller, Entry, Named, entry_name, name_of, path};

/// Pause between two comparisons of a configuration, and the longest where something keeps changing
/// it back.
const COMPARE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_mins(16));

/// How much of a refusal is told from its start and from its end, in characters.
const HEAD: usize = 300;
const TAIL: usize = 700;

/// When to compare again, after that many corrections in a row.
pub fn compare_after(corrections: u32) -> Duration {
    let (shortest, longest) = COMPARE;
    shortest.saturating_mul(1 << corrections.min(10)).min(longest)
}

/// Whether the entries in place are not `settled`. What the API server added to one is left to it.
pub fn differ(in_place: &[Value], settled: &[Value]) -> bool {
    in_place.len() != settled.len() || !settled.iter().zip(in_place).all(|(one, other)| is_so(one, other))
}

/// Whether an entry in place is for one of these Migrators.
pub fn speaks_of(entry: &Value, uids: &BTreeSet<String>) -> bool {
    callers(entry).migrators().iter().any(|named| uids.contains(&named.uid))
}

/// An entry in place that stays as it is, but trusts `ca_bundle`: whatever else is not known of it, a
/// change of authority must reach it too, or waits for it in vain.
pub fn trusting(entry: &Value, ca_bundle: &str) -> Value {
    let mut entry = entry.clone();
    entry["clientConfig"]["caBundle"] = json!(ca_bundle);
    entry
}

/// The entry in place of some of those that share it alone, who stay while another one takes its name.
pub fn apart(entry: &Value, uids: &BTreeSet<String>) -> Value {
    let caller = callers(entry);
    let named: Vec<_> = caller.migrators().iter().filter(|named| uids.contains(&named.uid)).collect();
    let mut entry = entry.clone();
    if let Some(first) = named.first() {
        entry["name"] = json!(entry_name(&first.uid));
        entry["clientConfig"]["service"]["path"] = json!(path(named));
    }
    entry
}

/// The API server's refusal of an entry, short enough for a condition: it quotes what it refuses, and
/// says why at the end.
pub fn refusal(message: &str) -> String {
    let length = message.chars().count();
    if length <= HEAD + TAIL {
        return message.to_owned();
    }
    let head: String = message.chars().take(HEAD).collect();
    let tail: String = message.chars().skip(length - TAIL).collect();
    format!("{head} ... {tail}")
}

impl Entry {
    /// As it is to be written beside `in_place`: with the versions that its Migrators were first
    /// written for, so that nothing changes with time alone, and with the namespaces that a platform
    /// excludes.
    pub fn settled(&self, in_place: &[Value]) -> Value {
        let mut entry = self.body.clone();
        if !self.migrators.is_empty() {
            let migrators: Vec<_> = self.migrators.iter().map(|it| self.remembered(it, in_place)).collect();
            entry["clientConfig"]["service"]["path"] = json!(path(&migrators));
        }
        if let Some(same) = in_place.iter().find(|other| name_of(other) == self.name()) {
            exclude_as(&mut entry, same);
        }
        entry
    }

    /// The same while it isn't proven that the API server reaches the webhook: only what is there
    /// already stays, and trusts whom it trusts.
    pub fn unproven(&self, in_place: &[Value]) -> Option<Value> {
        let uids: BTreeSet<_> = self.migrators.iter().map(|it| it.uid.clone()).collect();
        let same = |other: &&Value| name_of(other) == self.name() || speaks_of(other, &uids);
        let found = in_place.iter().find(same)?;
        let mut entry = self.settled(in_place);
        entry["clientConfig"]["caBundle"] = found["clientConfig"]["caBundle"].clone();
        Some(entry)
    }

    /// A Migrator with the version of the entry in place, if that selects the same Pods. A version
    /// beyond today's comes from another cluster, or from before a restore.
    fn remembered(&self, named: &Named, in_place: &[Value]) -> Named {
        let alike = in_place.iter().filter(|other| other["objectSelector"] == self.body["objectSelector"]);
        let versions = alike.filter_map(|other| {
            let caller = callers(other);
            caller.migrators().iter().find(|it| it.uid == named.uid).map(|it| it.version)
        });
        let earlier = versions.flatten().find(|version| named.version.is_some_and(|today| *version <= today));
        Named { uid: named.uid.clone(), version: earlier.or(named.version) }
    }
}

fn callers(entry: &Value) -> Caller {
    Caller::of(entry["clientConfig"]["service"]["path"].as_str().unwrap_or_default())
}

/// Leaves out the namespaces that `other` leaves out as well.
fn exclude_as(entry: &mut Value, other: &Value) {
    let expressions = |entry: &Value| -> Vec<Value> {
        entry["namespaceSelector"]["matchExpressions"].as_array().cloned().unwrap_or_default()
    };
    let mut all = expressions(other);
    let missing: Vec<_> = expressions(entry).into_iter().filter(|ours| !all.contains(ours)).collect();
    all.extend(missing);
    if !all.is_empty() {
        entry["namespaceSelector"]["matchExpressions"] = json!(all);
    }
}

/// Whether an entry in place is as desired. It may say more where a newer API server has new fields,
/// but not in what it selects.
fn is_so(desired: &Value, found: &Value) -> bool {
    let selectors = ["namespaceSelector", "objectSelector"];
    within(desired, found) && selectors.into_iter().all(|field| desired[field] == found[field])
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
