//! A run that can't start says why in the words of who refuses it, with the field that helps (contract §6).

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ResourceQuota, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use migrations_api::conditions::READY;
use migrations_testkit::builders::deployment;
use serde_json::json;

use super::shop::Shop;

impl Shop {
    /// Waits until the Ready condition says all of it.
    pub(super) async fn until_told(&self, words: &[&str]) {
        let told = |status: &migrations_api::MigratorStatus| {
            let ready = status.conditions.iter().find(|it| it.type_ == READY);
            ready.is_some_and(|it| words.iter().all(|word| it.message.contains(word)))
        };
        self.until_status(words[0], told).await;
    }

    /// Lets the namespace have so many Pods; nobody but the test counts them anew.
    async fn allow_pods(&self, count: u32) {
        let quotas: Api<ResourceQuota> = self.namespace.api();
        let hard = json!({ "spec": { "hard": { "pods": count.to_string() } } });
        quotas.patch("few", &PatchParams::default(), &Patch::Merge(hard)).await.expect("the quota");
        let hard = json!({ "status": { "hard": { "pods": count.to_string() } } });
        quotas.patch_status("few", &PatchParams::default(), &Patch::Merge(hard)).await.expect("the quota");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_refuses_the_runs_pod_is_told_with_the_field_that_helps() {
    let shop = Shop::beside_others().await;
    let quotas: Api<ResourceQuota> = shop.namespace.api();
    let quota = json!({ "metadata": { "name": "few" }, "spec": { "hard": { "pods": "1" } } });
    let quota = serde_json::from_value(quota).expect("a quota");
    quotas.create(&PostParams::default(), &quota).await.expect("a quota");
    let none = json!({ "status": { "hard": { "pods": "1" }, "used": { "pods": "0" } } });
    quotas.patch_status("few", &PatchParams::default(), &Patch::Merge(none)).await.expect("the quota");

    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_told(&["exceeded quota: few, requested: pods=1", "spec.resources", "ResourceQuota"]).await;
    shop.allow_pods(5).await;
    shop.migrate("shop:v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_that_is_missing_is_told_with_its_field() {
    let shop = Shop::beside_others().await;
    let account = json!({ "spec": { "serviceAccountName": "ddl" } });
    shop.namespace.create(&shop.migrator().with(account)).await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_told(&["serviceaccount \"ddl\" not found", "spec.serviceAccountName"]).await;
    let accounts: Api<ServiceAccount> = shop.namespace.api();
    let account = serde_json::from_value(json!({ "metadata": { "name": "ddl" } })).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("an account");
    shop.migrate("shop:v1").await;
}

/// Somebody else's, and nobody answers there: the API server calls that an internal error.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_down_is_told_with_what_helps() {
    let shop = Shop::beside_others().await;
    let namespace = shop.namespace.name();
    let configuration = json!({
        "metadata": { "name": format!("policy-{namespace}") },
        "webhooks": [{
            "name": "policy.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "clientConfig": { "url": "https://127.0.0.1:1/" },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "rules": [{
                "apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"],
            }],
        }],
    });
    let configuration: ValidatingWebhookConfiguration =
        serde_json::from_value(configuration).expect("a configuration");
    let configurations = Api::<ValidatingWebhookConfiguration>::all(shop.namespace.client());
    configurations.create(&PostParams::default(), &configuration).await.expect("a configuration");
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.until_told(&["failed calling webhook \"policy.example.com\"", "repair that webhook"]).await;
    let name = configuration.metadata.name.expect("its name");
    configurations.delete(&name, &DeleteParams::default()).await.expect("it is deleted");
    shop.migrate("shop:v1").await;
}
