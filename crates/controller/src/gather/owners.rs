//! Reads the owners that the climb to a workload asks for, of whatever kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt, discovery};
use migrations_core::snapshot::{OwnerRef, Owners, PodFacts};
use migrations_core::workload::{Climb, climb};
use serde_json::Value;

use super::Error;

/// Longest climb that is read for one Pod: its owners and a template borrowed from elsewhere.
const MAX_READS: usize = 10;

/// Reads owners. Remembers how kinds are called in the API, but never an object: whether a Pod is
/// of its workload's newest revision can only be said from the workload as it is now.
#[derive(Clone)]
pub struct OwnerReader {
    client: Client,
    resources: Arc<Mutex<HashMap<GroupVersionKind, ApiResource>>>,
}

impl OwnerReader {
    /// A reader that knows no kind yet.
    pub fn new(client: Client) -> Self {
        Self { client, resources: Arc::default() }
    }

    /// All owners on the way from these Pods to their workloads, each read once.
    pub async fn of(
        &self,
        namespace: &str,
        pods: &[PodFacts],
        container: Option<&str>,
    ) -> Result<Owners, Error> {
        let mut owners = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.live()) {
            for _ in 0..MAX_READS {
                let Some(Climb::Read(reference)) = climb(pod, container, &owners) else { break };
                let object = self.read(namespace, &reference).await.map_err(|source| Error::Owner {
                    kind: reference.kind.clone(),
                    name: reference.name.clone(),
                    source,
                })?;
                owners.insert(reference, object);
            }
        }
        Ok(owners)
    }

    /// Reads one. Gone, forbidden, unknown or another object of that name are a value; faults that
    /// may pass are errors.
    async fn read(&self, namespace: &str, reference: &OwnerRef) -> Result<Option<Value>, kube::Error> {
        let Some(resource) = unless_refused(self.resource(reference).await)? else { return Ok(None) };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), namespace, &resource);
        let Some(mut object) = unless_refused(api.get(&reference.name).await)? else { return Ok(None) };
        if reference.uid.is_some() && object.uid() != reference.uid {
            return Ok(None);
        }
        object.metadata.managed_fields = None;
        serde_json::to_value(object).map(Some).map_err(kube::Error::SerdeError)
    }

    async fn resource(&self, reference: &OwnerRef) -> Result<ApiResource, kube::Error> {
        let kind = match reference.api_version.split_once('/') {
            Some((group, version)) => GroupVersionKind::gvk(group, version, &reference.kind),
            None => GroupVersionKind::gvk("", &reference.api_version, &reference.kind),
        };
        let known = || self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resource) = known().get(&kind) {
            return Ok(resource.clone());
        }
        let (resource, _) = discovery::pinned_kind(&self.client, &kind).await?;
        known().insert(kind, resource.clone());
        Ok(resource)
    }
}

/// `None` for what the API server says no to for good: 403 and 404, and a kind that it doesn't have.
pub(super) fn unless_refused<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403..=405) => Ok(None),
        Err(kube::Error::Discovery(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
