//! The operator's service accounts, with the rights that the manifests give them.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::PostParams;
use kube::{Api, Resource};
use migrations_api::names::OPERATOR_NAMESPACE;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ControlPlane;
use crate::manifests::manifest;

impl ControlPlane {
    /// Installs a service account of the manifests in the operator's namespace, with its roles, which have
    /// its name. See [`Self::client_as`].
    pub async fn install_account(&self, name: &str) {
        let client = self.client();
        install(Api::<Namespace>::all(client.clone()), "Namespace", OPERATOR_NAMESPACE).await;
        install(Api::<ClusterRole>::all(client.clone()), "ClusterRole", name).await;
        install(Api::<ClusterRoleBinding>::all(client.clone()), "ClusterRoleBinding", name).await;
        install(Api::<Role>::namespaced(client.clone(), OPERATOR_NAMESPACE), "Role", name).await;
        install(Api::<RoleBinding>::namespaced(client.clone(), OPERATOR_NAMESPACE), "RoleBinding", name)
            .await;
        install(Api::<ServiceAccount>::namespaced(client, OPERATOR_NAMESPACE), "ServiceAccount", name).await;
    }
}

async fn install<K>(api: Api<K>, kind: &str, name: &str)
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let object = serde_json::from_value(manifest(kind, name)).expect("an object of its kind");
    api.create(&PostParams::default(), &object).await.expect("the manifest is accepted");
}
