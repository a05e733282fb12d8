//! Released Pods are marked, each once, with the shipped rights (contract §8).

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use migrations_testkit::builders::deployment;

use super::shop::Shop;

const RELEASED: &str = "migrations.coderanger.net/released";

async fn pods(shop: &Shop) -> [String; 2] {
    let both = |all: &[Pod]| {
        let of_shop = all.iter().filter(|pod| pod.labels().get("app").is_some_and(|app| app == "shop"));
        let names: Vec<_> = of_shop.map(ResourceExt::name_any).collect();
        <[String; 2]>::try_from(names).ok()
    };
    shop.namespace.until::<Pod, _>("two Pods", both).await
}

/// Waits until a Pod carries the mark; returns its version.
async fn until_marked(shop: &Shop, name: &str) -> Option<String> {
    let marked = |all: &[Pod]| {
        let pod = all.iter().find(|pod| pod.name_any() == name)?;
        (pod.annotations().get(RELEASED) == pod.uid().as_ref()).then(|| pod.resource_version())
    };
    shop.namespace.until::<Pod, _>("the mark", marked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_marked_once_its_waiter_has_ended_and_not_before_or_again() {
    let shop = Shop::beside_others().await;
    shop.create_migrator().await;
    // As where a template was made from a live Pod.
    let template = shop.template("shop:v1").annotation(RELEASED, "of-another-pod");
    shop.namespace.create(&deployment("web").template(&template).replicas(2)).await;
    let [first, second] = pods(&shop).await;
    shop.namespace.initialize_pod(&second).await;
    shop.migrate("shop:v1").await;

    shop.namespace.start_pod(&first).await;
    let version = until_marked(&shop, &first).await;
    let api: Api<Pod> = shop.namespace.api();
    let waits = api.get(&second).await.expect("the Pod");
    assert_eq!(waits.annotations()[RELEASED], "of-another-pod", "its waiter still runs");

    shop.namespace.start_pod(&second).await;
    until_marked(&shop, &second).await;
    let first = api.get(&first).await.expect("the Pod");
    assert_eq!(first.resource_version(), version, "it was written to again");
}
