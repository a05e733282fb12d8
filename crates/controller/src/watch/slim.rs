//! Objects as they are decoded off the wire: what decisions read, and nothing else. Most of a Pod or a
//! Job (managed fields, environment, probes, the template) is skipped without ever being held.

mod job;
mod pod;

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A Pod to list and watch.
pub type SlimPod = Slim<Pod>;

/// A Job to list and watch.
pub type SlimJob = Slim<Job>;

/// An object of a kind to list and watch.
#[derive(Clone, Debug)]
pub struct Slim<K: Skimmed> {
    /// Namespace, name, uid and resource version, and nothing else.
    metadata: ObjectMeta,
    /// What decisions read of it.
    pub facts: K::Facts,
}

/// A kind of which little is read.
pub trait Skimmed: Resource<DynamicType = ()> + Sized {
    /// The fields that are read. A decision that reads more has to have it listed there; the tests
    /// compare with an object that was decoded whole.
    type Read: DeserializeOwned + Into<Self>;

    /// What decisions know of an object. By way of the kind itself, so that there is one reading of it.
    type Facts: for<'a> From<&'a Self>;
}

impl<'de, K: Skimmed> Deserialize<'de> for Slim<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object: K = K::Read::deserialize(deserializer)?.into();
        let facts = K::Facts::from(&object);
        let ObjectMeta { namespace, name, uid, resource_version, .. } = std::mem::take(object.meta_mut());
        let metadata = ObjectMeta { namespace, name, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, facts })
    }
}

impl<K: Skimmed> Resource for Slim<K> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadMetadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
}

impl From<ReadMetadata> for ObjectMeta {
    fn from(read: ReadMetadata) -> Self {
        Self {
            namespace: read.namespace,
            name: read.name,
            uid: read.uid,
            resource_version: read.resource_version,
            labels: read.labels,
            annotations: read.annotations,
            owner_references: read.owner_references,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            deletion_grace_period_seconds: read.deletion_grace_period_seconds,
            ..Self::default()
        }
    }
}
