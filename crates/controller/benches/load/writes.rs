//! What was written, told by the versions of all objects that the controller may write.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use migrations_api::{Migrator, names};
use serde_json::json;

/// Versions of objects by kind, namespace and name.
pub(crate) type Versions = BTreeMap<(String, String, String), String>;

/// The versions of all objects of those kinds.
pub(crate) async fn versions(client: &Client) -> Versions {
    let kinds = [
        resource::<Migrator>(),
        resource::<Job>(),
        resource::<MutatingWebhookConfiguration>(),
        resource::<ConfigMap>(),
        resource::<Secret>(),
        resource::<Lease>(),
        resource::<Event>(),
    ];
    let mut versions = Versions::new();
    for resource in kinds {
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        for object in api.list_metadata(&ListParams::default()).await.unwrap() {
            let namespace = object.namespace().unwrap_or_default();
            let key = (resource.kind.clone(), namespace, object.name_any());
            versions.insert(key, object.resource_version().unwrap());
        }
    }
    versions
}

/// Which objects were written in between.
pub(crate) fn between(before: &Versions, after: &Versions) -> String {
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let names: Vec<_> = changed.map(|(kind, namespace, name)| format!("{kind} {namespace}/{name}")).collect();
    if names.is_empty() { "none".to_owned() } else { format!("{}: {}", names.len(), names.join(", ")) }
}

/// The webhook configurations as the manifests ship them: without a `webhooks` in them.
pub(crate) async fn ship_configurations(client: &Client) {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let all = (0..names::ENTRY_SHARDS).map(names::entry_configuration);
    for name in all.chain([names::REQUIRED_CONFIGURATION, names::PROBE_CONFIGURATION].map(str::to_owned)) {
        let empty = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        api.create(&PostParams::default(), &empty).await.unwrap();
    }
}

fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}
