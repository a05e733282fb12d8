//! Which image a Pod waits for, whatever other webhooks, users and `spec.image` make of it (contract §3).

use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::Api;
use kube::api::{Patch, PatchParams};
use migrations_api::Migrator;
use migrations_testkit::builders::{deployment, pod, replication_controller};
use serde_json::json;

use super::admission::{APP, MIRROR, MIRRORED};
use super::shop::Shop;

/// Its waiter asks by an image that nobody migrates, so it is released by its revision.
#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_images_were_rewritten_are_released_by_their_revision() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let template = shop.template("shop:v1").label(MIRRORED, "true");
    shop.namespace.create(&deployment("web").template(&template)).await;
    for image in ["shop:v1", "shop:v2"] {
        if image == "shop:v2" {
            shop.set_image(image).await;
        }
        let pods = shop.until_pods(&format!("{MIRROR}{image}")).await;
        // Of the template's image: what a mirror makes of it is no other migration.
        shop.migrate(image).await;
        let revision = shop.revision_of(&pods[0]).await;
        let tied = |status: &migrations_api::MigratorStatus| {
            status.done.iter().any(|it| it.key == image && it.revisions.contains(&revision))
        };
        shop.until_status("the revision", |status| tied(status) && status.waiting == Some(0)).await;
        shop.pods_start(&format!("{MIRROR}{image}")).await;
    }
    assert_eq!(shop.all_runs().await, ["shop:v1", "shop:v2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_spec_image_is_run_once_and_holds_nobody() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.migrate("shop:v1").await;
    let changes =
        [(json!("migrate:1"), "migrate:1"), (json!("migrate:2"), "migrate:2"), (json!(null), "shop:v1")];
    for (value, image) in changes {
        shop.patch::<Migrator>("shop", json!({ "spec": { "image": value } })).await;
        let run = shop.run_starts(image).await;
        let status = shop.until_reason("Running").await;
        assert!(status.done.iter().any(|it| it.key == "shop:v1"), "what is done stays done");
        assert_eq!(status.waiting, Some(0));
        shop.run_ends(&run, 0, "").await;
        shop.until_status("its record", |status| status.current.is_none()).await;
    }
    assert_eq!(shop.all_runs().await, ["shop:v1", "migrate:1", "migrate:2", "shop:v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_of_a_live_pod_is_no_migration() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1"))).await;
    shop.migrate("shop:v1").await;
    shop.namespace.create(&pod("alone").label(APP, "shop").container("app", "alone:v1")).await;
    shop.migrate("alone:v1").await;
    let of_deployment = shop.pods_start("shop:v1").await.remove(0);
    shop.pods_start("alone:v1").await;
    // As `kubectl set image pod` does.
    let pods: Api<Pod> = shop.namespace.api();
    for pod in ["alone", &of_deployment] {
        let patch = json!({ "spec": { "containers": [{ "name": "app", "image": "shop:v9" }] } });
        pods.patch(pod, &PatchParams::default(), &Patch::Strategic(patch)).await.expect("the Pod");
    }
    assert_eq!(shop.all_runs().await, ["shop:v1", "alone:v1"]);
}

/// Waits until that Pod may start by its own uid, and no other waits.
async fn until_tied(shop: &Shop, key: &str, pod: &str) {
    let uid = shop.uid_of(pod).await;
    let tied = |status: &migrations_api::MigratorStatus| {
        let tied = status.done.iter().any(|it| it.key == key && it.revisions.contains(&uid));
        tied && status.waiting == Some(0)
    };
    shop.until_status("the Pod's uid", tied).await;
}

/// It has one template, and its Pods nothing that tells of which.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controllers_pod_with_a_rewritten_image_is_released_by_its_uid_or_told() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    let template = shop.template("shop:v1").label(MIRRORED, "true");
    shop.namespace.create(&replication_controller("web").template(&template)).await;
    let web = shop.until_pods(&format!("{MIRROR}shop:v1")).await.remove(0);
    shop.migrate("shop:v1").await;
    until_tied(&shop, "shop:v1", &web).await;

    // Changed once: nobody can say any more what its Pods are made from.
    shop.set_image_of::<ReplicationController>("web", "shop:v2").await;
    shop.delete::<Pod>(&web).await;
    let status = shop.until_reason("PodsStranded").await;
    assert_eq!(status.waiting, Some(1));
    shop.until_event("PodsStranded", "ReplicationController web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_pod_outside_the_template_selector_follows_by_its_uid() {
    let shop = Shop::beside_others().await;
    shop.namespace.create(&shop.migrator().taking_templates_from("role", "web")).await;
    let alone = pod("alone").label(APP, "shop").label("role", "tool").container("app", "tool:v1");
    shop.namespace.create(&alone).await;
    shop.namespace.create(&deployment("web").template(&shop.template("shop:v1").label("role", "web"))).await;
    shop.migrate("shop:v1").await;
    until_tied(&shop, "shop:v1", "alone").await;
    assert_eq!(shop.all_runs().await, ["shop:v1"]);
}
