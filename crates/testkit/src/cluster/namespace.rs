//! A namespace of a test's own, and what a test does in it.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::until;
use crate::builders::Object;

/// A namespace in the control plane. It stays when this is dropped: the control plane ends soon.
#[derive(Clone)]
pub struct TestNamespace {
    client: Client,
    name: String,
}

impl TestNamespace {
    pub(super) async fn made_by(client: Client) -> Self {
        let object = super::from_json::<Namespace>(json!({ "metadata": { "generateName": "test-" } }));
        let object = Api::all(client.clone()).create(&PostParams::default(), &object).await;
        let namespace = Self { client, name: object.expect("a Namespace").name_any() };
        // Before it exists, Pods are refused.
        let accounts: Api<ServiceAccount> = namespace.api();
        until(&accounts, "the default service account", |accounts| accounts.first().map(drop)).await;
        namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client that may do anything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Its objects of kind `K`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an object here, whatever namespace it names, with the status that it has. Its uid is
    /// the API server's; name an owner by [`crate::builders::existing`].
    pub async fn create<K>(&self, object: &Object<K>) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
    {
        // As JSON, so that fields which K doesn't know arrive as well.
        let json = object.clone().namespace(&self.name).json();
        let status = json["status"].clone();
        let resource = ApiResource::erase::<K>(&());
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &self.name, &resource);
        let object: DynamicObject = super::from_json(json);
        let name = object.name_any();
        let mut created = api
            .create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| refused::<K>(&name, &error));
        if !status.is_null() {
            let patch = Patch::Merge(json!({ "status": status }));
            let patched = api.patch_status(&name, &PatchParams::default(), &patch).await;
            created = patched.unwrap_or_else(|error| refused::<K>(&name, &error));
        }
        created.try_parse().expect("what was created can be read")
    }

    /// Waits until `found` finds what it looks for among the objects of kind `K`; see [`until`].
    pub async fn until<K, T>(&self, what: &str, found: impl FnMut(&[K]) -> Option<T>) -> T
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    {
        until(&self.api::<K>(), what, found).await
    }
}

fn refused<K: Resource<DynamicType = ()>>(name: &str, error: &kube::Error) -> DynamicObject {
    panic!("{} {name} is refused: {error}", K::kind(&()))
}
