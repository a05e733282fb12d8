//! Reads the owners that the climb to a workload asks for, of whatever kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, ResourceExt, discovery};
use migrations_core::snapshot::{OwnerRef, Snapshot};
use migrations_core::survey::wanted;
use migrations_core::validate::Valid;
use serde_json::Value;

use super::Error;

/// Longest climb that is read: the owners of a Pod, a template borrowed from elsewhere or kept of an
/// earlier revision, and the Pod itself.
const MAX_ROUNDS: usize = 12;

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

    /// Reads all owners on the way from the snapshot's Pods to their workloads into it, each once.
    pub async fn read_into(&self, snapshot: &mut Snapshot, valid: &Valid) -> Result<(), Error> {
        for _ in 0..MAX_ROUNDS {
            let wanted = wanted(valid, snapshot);
            if wanted.is_empty() {
                break;
            }
            for reference in wanted {
                let object = self.read(&snapshot.namespace, &reference).await.map_err(|source| {
                    Error::Owner { kind: reference.kind.clone(), name: reference.name.clone(), source }
                })?;
                snapshot.owners.insert(reference, object);
            }
        }
        Ok(())
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
