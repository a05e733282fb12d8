//! Many objects: Pods as real clusters have them, Migrators, namespaces.

use std::ops::Range;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use migrations_api::Migrator;
use migrations_testkit::builders::{Object, migrator, pod};
use migrations_testkit::cluster::TestNamespace;
use serde_json::json;

/// How many objects are created at once.
const AT_ONCE: usize = 32;

/// A Pod with what Pods come with: variables, probes, resources, volumes.
fn unrelated(name: &str) -> Object<Pod> {
    let variables: Vec<_> = (0..20)
        .map(|index| json!({ "name": format!("SETTING_{index}"), "value": format!("value of setting {index}") }))
        .collect();
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 10 });
    pod(name).label("app", "unrelated").label("pod-template-hash", "5d4f8c7b96").container_with(
        "app",
        "registry.example/unrelated:v1.2.3",
        json!({
            "env": variables, "livenessProbe": probe, "readinessProbe": probe,
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
        }),
    )
}

/// How long one of them is as the API server sends it.
pub(crate) async fn size(namespace: &TestNamespace) -> usize {
    let sample = namespace.create(&unrelated("sample")).await;
    let pods: Api<Pod> = namespace.api();
    pods.delete("sample", &DeleteParams::default().grace_period(0)).await.unwrap();
    serde_json::to_string(&sample).unwrap().len()
}

/// Creates the Pods of these numbers.
pub(crate) async fn grow(namespace: &TestNamespace, numbers: Range<usize>) {
    let pods: Api<Pod> = namespace.api();
    let create = |number: usize| {
        let pods = pods.clone();
        let pod = unrelated(&format!("unrelated-{number}")).namespace(namespace.name()).build();
        async move { pods.create(&PostParams::default(), &pod).await.map(drop).unwrap() }
    };
    stream::iter(numbers).map(create).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Creates Migrators, spread over that many namespaces.
pub(crate) async fn migrators(client: &Client, count: usize, namespaces: usize) {
    let all: Api<Namespace> = Api::all(client.clone());
    let create = |number: usize| {
        let all = all.clone();
        let object = serde_json::from_value(json!({ "metadata": { "name": format!("team-{number}") } }));
        async move { all.create(&PostParams::default(), &object.unwrap()).await.map(drop).unwrap() }
    };
    stream::iter(0..namespaces).map(create).buffer_unordered(AT_ONCE).collect::<()>().await;
    let create = |number: usize| {
        let namespace = format!("team-{}", number % namespaces);
        let name = format!("shop-{number}");
        let object = migrator(&name).namespace(&namespace).selecting("app", &name).command(["migrate"]);
        let api = Api::<Migrator>::namespaced(client.clone(), &namespace);
        async move { api.create(&PostParams::default(), &object.build()).await.map(drop).unwrap() }
    };
    stream::iter(0..count).map(create).buffer_unordered(AT_ONCE).collect::<()>().await;
}
