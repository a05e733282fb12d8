//! Kinds of workloads that Kubernetes doesn't know by itself. Nobody controls them here: tests make what
//! their controllers would.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::Condition;
use kube::{Api, Client, ResourceExt};
use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_testkit::cluster::until;
use serde_json::{Value, json};

use super::shop::Shop;

/// A kind by its group, version and name.
pub(crate) struct Kind(&'static str, &'static str, &'static str);

/// Of Argo Rollouts; the shipped role lets the controller read it.
pub(crate) const ROLLOUT: Kind = Kind("argoproj.io", "v1alpha1", "Rollout");

/// Makes Pods; the controller was given the right to read it.
pub(crate) const CLONE: Kind = Kind("chain.example.com", "v1", "Clone");

/// Makes others; the controller was given the right to read it.
pub(crate) const FLEET: Kind = Kind("chain.example.com", "v1", "Fleet");

/// Makes Pods; the controller may not read it.
pub(crate) const HIDDEN: Kind = Kind("hidden.example.com", "v1", "Hidden");

/// Defines them, and gives the operator's `account` its rights.
pub(crate) async fn install(client: Client, account: &str) {
    for kind in [ROLLOUT, CLONE, FLEET, HIDDEN] {
        kind.define(client.clone()).await;
    }
    let role = json!({
        "metadata": { "name": "chain" },
        "rules": [{ "apiGroups": ["chain.example.com"], "resources": ["clones", "fleets"], "verbs": ["get"] }],
    });
    let role: ClusterRole = serde_json::from_value(role).expect("a role");
    Api::all(client.clone()).create(&PostParams::default(), &role).await.expect("a role");
    let binding = json!({
        "metadata": { "name": "chain" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chain" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": OPERATOR_NAMESPACE, "name": account }],
    });
    let binding: ClusterRoleBinding = serde_json::from_value(binding).expect("a binding");
    Api::all(client).create(&PostParams::default(), &binding).await.expect("a binding");
}

impl Kind {
    fn resource(&self) -> ApiResource {
        let Self(group, version, kind) = self;
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }

    async fn define(&self, client: Client) {
        let Self(group, version, kind) = self;
        let plural = self.resource().plural;
        let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let definition = json!({
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": schema }, "subresources": { "status": {} },
                }],
            },
        });
        let definition: CustomResourceDefinition = serde_json::from_value(definition).expect("a definition");
        let api = Api::<CustomResourceDefinition>::all(client);
        api.create(&PostParams::default(), &definition).await.expect("a definition");
        let name = definition.name_any();
        until(&api, "the kind to be served", |all| {
            let served = |it: &&CustomResourceDefinition| it.name_any() == name;
            is_crd_established().matches_object(all.iter().find(served)).then_some(())
        })
        .await;
    }

    fn api(&self, shop: &Shop) -> Api<DynamicObject> {
        Api::namespaced_with(shop.namespace.client(), shop.namespace.name(), &self.resource())
    }

    /// Creates one; `owner` controls it.
    pub(crate) async fn create(
        &self,
        shop: &Shop,
        name: &str,
        spec: Value,
        owner: Option<&DynamicObject>,
    ) -> DynamicObject {
        let mut object = DynamicObject::new(name, &self.resource()).data(json!({ "spec": spec }));
        object.metadata.owner_references =
            owner.map(|owner| serde_json::from_value(json!([reference(owner)])).expect("a reference"));
        self.api(shop).create(&PostParams::default(), &object).await.expect("it is served")
    }

    /// Merges `patch` into one.
    pub(crate) async fn patch(&self, shop: &Shop, name: &str, patch: Value) -> DynamicObject {
        let patched = self.api(shop).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.expect("it is there")
    }

    /// Merges `status` into one's.
    pub(crate) async fn patch_status(&self, shop: &Shop, name: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api(shop).patch_status(name, &PatchParams::default(), &patch).await.expect("it is there");
    }
}

/// What an object that `owner` controls says of it.
pub(crate) fn reference(owner: &DynamicObject) -> Value {
    let types = owner.types.as_ref().expect("it was read");
    json!({
        "apiVersion": types.api_version, "kind": types.kind,
        "name": owner.metadata.name, "uid": owner.metadata.uid, "controller": true,
    })
}
