//! The webhook entries (contract §7): which Pods admission sends to the operator. One for Migrators
//! that select the same Pods, spread over a fixed set of shipped configurations; one for Pods annotated
//! as required; one to prove that the webhook can be reached.

mod caller;
mod conditions;
mod in_place;
pub mod probe;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use migrations_api::{MigratorSpec, MigratorStatus, names};
use serde_json::{Value, json};

pub use caller::{Caller, Named};
use caller::{path, probe_path, required_path};
pub use in_place::{apart, compare_after, differ, refusal, speaks_of, trusting};

/// Name of the port of the webhook's Pods that the Service leads to.
const WEBHOOK_PORT_NAME: &str = "admission";

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
    /// Version at which it was read.
    pub resource_version: &'a str,
    /// Namespace of the Migrator.
    pub namespace: &'a str,
    /// Its spec, whose selector is known to select something and not everything.
    pub spec: &'a MigratorSpec,
    /// Its status.
    pub status: Option<&'a MigratorStatus>,
    /// Opened by hand: nothing is asked for.
    pub open: bool,
}

/// A desired entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who shares it, by uid; nobody where the entry is for no Migrator.
    migrators: Vec<Named>,
    /// Everything but the path, where there are Migrators.
    body: Value,
}

/// Versions count for nothing: they change with every write to a Migrator.
impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.body.hash(state);
        self.uids().for_each(|uid| uid.hash(state));
    }
}

impl Entry {
    /// Its name: the uid of the first of its Migrators.
    pub fn name(&self) -> &str {
        name_of(&self.body)
    }

    /// Uids of the Migrators that share it.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.migrators.iter().map(|it| it.uid.as_str())
    }
}

/// Namespaces whose Pods admission never holds: the cluster's own and the operator's.
pub fn is_excluded(namespace: &str, operator_namespace: &str) -> bool {
    namespace == "kube-system" || namespace == operator_namespace
}

/// The desired entries of every shipped configuration, by its name.
pub fn configurations<'a>(
    migrators: impl IntoIterator<Item = Gated<'a>>,
    endpoint: &Endpoint,
) -> BTreeMap<String, Vec<Entry>> {
    let mut all: BTreeMap<String, Vec<Entry>> =
        (0..names::ENTRY_SHARDS).map(|shard| (names::entry_configuration(shard), Vec::new())).collect();
    all.insert(names::REQUIRED_CONFIGURATION.to_owned(), vec![required_entry(endpoint)]);
    all.insert(names::PROBE_CONFIGURATION.to_owned(), vec![probe::entry(endpoint)]);

    let mut sharing: BTreeMap<(&str, String), Vec<Gated<'_>>> = BTreeMap::new();
    for gated in migrators.into_iter().filter(|gated| !gated.open) {
        let selector = json!(in_order(&gated.spec.selector)).to_string();
        sharing.entry((gated.namespace, selector)).or_default().push(gated);
    }
    for ((namespace, selector), mut migrators) in sharing {
        migrators.sort_by_key(|gated| gated.uid);
        let name = names::entry_configuration(shard(namespace, &selector));
        all.entry(name).or_default().extend(shared_entry(namespace, &migrators, endpoint));
    }
    for entries in all.values_mut() {
        entries.sort_by(|one, other| one.name().cmp(other.name()));
    }
    all
}

/// Name of an entry, empty where it has none.
pub fn name_of(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Name of the entry of Migrators of whom this one is the first.
fn entry_name(uid: &str) -> String {
    format!("{uid}.{}", names::GROUP)
}

/// Which configuration an entry is in: stable, and even over many. By what it selects and not by who
/// selects, so that those who share one may come and go.
fn shard(namespace: &str, selector: &str) -> usize {
    let bytes = namespace.bytes().chain(selector.bytes());
    bytes.fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte))) % names::ENTRY_SHARDS
}

/// A selector as every other that says the same in another order, and as the API server gives it back:
/// without what is empty.
fn in_order(selector: &LabelSelector) -> LabelSelector {
    let LabelSelector { match_expressions, match_labels } = selector.clone();
    let mut expressions = match_expressions.unwrap_or_default();
    for expression in &mut expressions {
        expression.values = expression.values.take().filter(|values| !values.is_empty());
        expression.values.iter_mut().for_each(|values| values.sort());
    }
    expressions.sort_by_key(|it| (it.key.clone(), it.operator.clone(), it.values.clone()));
    LabelSelector {
        match_expressions: Some(expressions).filter(|it| !it.is_empty()),
        match_labels: match_labels.filter(|labels| !labels.is_empty()),
    }
}

/// The entry of Migrators that select the same Pods. It fails closed, so it must ask for as little as
/// it can: an outage of the operator holds back what it asks for, and nothing else.
fn shared_entry(namespace: &str, migrators: &[Gated<'_>], endpoint: &Endpoint) -> Option<Entry> {
    let first = migrators.first()?;
    let name = entry_name(first.uid);
    let namespaces = json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace } });
    let objects = json!(in_order(&first.spec.selector));
    let body = webhook(&name, "", endpoint, &namespaces, &objects, &conditions::of_migrators(migrators));
    let named =
        |gated: &Gated<'_>| Named { uid: gated.uid.to_owned(), version: gated.resource_version.parse().ok() };
    Some(Entry { migrators: migrators.iter().map(named).collect(), body })
}

/// The entry for Pods that ask to be held even while there is no Migrator: how a first install is
/// gated whatever the order of objects.
fn required_entry(endpoint: &Endpoint) -> Entry {
    let excluded = ["kube-system", &endpoint.namespace];
    let namespaces = json!({ "matchExpressions": [
        { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded },
    ]});
    let name = format!("required.{}", names::GROUP);
    let body = webhook(&name, &required_path(), endpoint, &namespaces, &json!({}), &conditions::required());
    Entry { migrators: Vec::new(), body }
}

fn webhook(
    name: &str,
    path: &str,
    endpoint: &Endpoint,
    namespaces: &Value,
    objects: &Value,
    conditions: &[Value],
) -> Value {
    let mut entry = json!({
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
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 5,
    });
    // The API server drops an empty list.
    if !conditions.is_empty() {
        entry["matchConditions"] = json!(conditions);
    }
    entry
}

#[cfg(test)]
#[path = "entries/tests.rs"]
mod tests;
