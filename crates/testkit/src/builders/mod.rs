//! Objects for tests, written as sentences:
//!
//! ```
//! use migrations_testkit::builders::{deployment, migrator, pod, replica_set};
//!
//! let web = pod("web-5d4-x").label("app", "web").container("app", "shop:v1");
//! let workload = deployment("web").template(&web);
//! let owner = replica_set("web-5d4").template(&web).owned_by(&workload);
//! let pod = web.owned_by(&owner).running().build();
//! let migrator = migrator("shop").selecting("app", "web").build();
//! # assert_eq!(pod.metadata.namespace, migrator.metadata.namespace);
//! ```
//!
//! An object gets the namespace `shop` and a uid made from its kind and name, unless told otherwise.

mod migrator;
mod pod;
mod workload;

use std::marker::PhantomData;

use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use migrator::migrator;
pub use pod::pod;
pub use workload::{
    cron_job, daemon_set, deployment, job, replica_set, replication_controller, stateful_set,
};

/// An object of kind `K` being described. It is kept as JSON, so that it may hold what `K` does not
/// know.
#[derive(Debug)]
#[must_use = "it describes an object; `build` or `json` makes it"]
pub struct Object<K> {
    json: Value,
    kind: PhantomData<fn() -> K>,
}

/// An object that exists, to be named as an owner or to be changed.
pub fn existing<K>(object: &K) -> Object<K>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let kind = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()) });
    let json = serde_json::to_value(object).expect("an object is JSON");
    Object { json, kind: PhantomData }.with(kind)
}

impl<K> Clone for Object<K> {
    fn clone(&self) -> Self {
        Self { json: self.json.clone(), kind: PhantomData }
    }
}

impl<K> Object<K> {
    pub(crate) fn new(api_version: &str, kind: &str, name: &str) -> Self {
        let uid = format!("{}-{name}", kind.to_lowercase());
        let json = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": { "name": name, "namespace": "shop", "uid": uid },
        });
        Self { json, kind: PhantomData }
    }

    /// Sets its namespace.
    pub fn namespace(self, namespace: &str) -> Self {
        self.with(json!({ "metadata": { "namespace": namespace } }))
    }

    /// Sets its uid: two objects of one name are told apart by it.
    pub fn uid(self, uid: &str) -> Self {
        self.with(json!({ "metadata": { "uid": uid } }))
    }

    /// Adds a label.
    pub fn label(self, name: &str, value: &str) -> Self {
        self.with(json!({ "metadata": { "labels": { name: value } } }))
    }

    /// Adds an annotation.
    pub fn annotation(self, name: &str, value: &str) -> Self {
        self.with(json!({ "metadata": { "annotations": { name: value } } }))
    }

    /// Sets its generation.
    pub fn generation(self, generation: i64) -> Self {
        self.with(json!({ "metadata": { "generation": generation } }))
    }

    /// Sets its resource version.
    pub fn resource_version(self, version: &str) -> Self {
        self.with(json!({ "metadata": { "resourceVersion": version } }))
    }

    /// Sets when it was created, as RFC 3339.
    pub fn created(self, time: &str) -> Self {
        self.with(json!({ "metadata": { "creationTimestamp": time } }))
    }

    /// Says that it is being deleted since `time`, as RFC 3339.
    pub fn terminating_since(self, time: &str) -> Self {
        self.with(json!({ "metadata": { "deletionTimestamp": time, "deletionGracePeriodSeconds": 30 } }))
    }

    /// Makes `owner` its controller.
    pub fn owned_by<O>(self, owner: &Object<O>) -> Self {
        let reference = json!({
            "apiVersion": owner.json["apiVersion"],
            "kind": owner.json["kind"],
            "name": owner.json["metadata"]["name"],
            "uid": owner.json["metadata"]["uid"],
            "controller": true,
            "blockOwnerDeletion": true,
        });
        self.with(json!({ "metadata": { "ownerReferences": [reference] } }))
    }

    /// Merges `part` into the object, for what has no word of its own: maps are merged, all else is
    /// replaced, `null` removes.
    pub fn with(mut self, part: Value) -> Self {
        merge(&mut self.json, part);
        self
    }

    /// The object as JSON.
    pub fn json(&self) -> Value {
        self.json.clone()
    }

    /// The object.
    pub fn build(&self) -> K
    where
        K: DeserializeOwned,
    {
        serde_json::from_value(self.json.clone()).unwrap_or_else(|error| {
            panic!("this is no {}: {error}\n{:#}", self.json["kind"], self.json);
        })
    }

    /// Adds `item` to the list at `pointer`, which is made where it is missing.
    pub(crate) fn push(mut self, pointer: &[&str], item: Value) -> Self {
        let list = pointer.iter().fold(&mut self.json, |value, key| &mut value[*key]);
        match list {
            Value::Array(items) => items.push(item),
            missing => *missing = json!([item]),
        }
        self
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().and_then(|map| map.remove(&key));
        } else {
            merge(&mut target[key], value);
        }
    }
}
