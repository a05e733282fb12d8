//! Runs of templates with everything odd in them are taken by the API server, and the Job controller
//! makes Pods of them (contract §4).

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use migrations_api::names;
use migrations_testkit::builders::{Object, deployment, migrator, pod, stateful_set};
use migrations_testkit::cluster::{ControlPlane, NODE};
use serde_json::{Value, json};

use super::shop::Shop;

/// A Pod with whatever a template may hold, its application in the second container.
fn odd_pod(image: &str, volumes: &Value) -> Object<Pod> {
    let own = json!({ "matchLabels": { "app": "shop" } });
    let term =
        |selector: &Value| json!({ "labelSelector": selector, "topologyKey": "kubernetes.io/hostname" });
    let of_revision = |mut term: Value| {
        term["matchLabelKeys"] = json!(["pod-template-hash", "app"]);
        term
    };
    let spread = |when: &str| {
        let mut constraint = term(&own);
        constraint["maxSkew"] = json!(1);
        constraint["whenUnsatisfiable"] = json!(when);
        constraint["matchLabelKeys"] = json!(["pod-template-hash"]);
        constraint
    };
    let memory = json!({ "containerName": "app", "resource": "limits.memory" });
    let resize = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let mounts =
        ["media", "own", "data"].map(|name| json!({ "name": name, "mountPath": format!("/{name}") }));
    let exec = json!({ "exec": { "command": ["true"] } });
    let http = json!({ "httpGet": { "port": "http" } });
    pod("web")
        .label("app", "shop")
        .label("tenant", "a")
        .annotation(names::NO_WAIT_ANNOTATION, "true")
        .init_container("config", "config:1")
        .init_container_with(
            "mesh",
            "mesh:1",
            json!({
                "restartPolicy": "Always", "ports": [{ "name": "http", "containerPort": 15000, "hostPort": 15000 }],
                "startupProbe": http, "livenessProbe": http, "resizePolicy": resize,
            }),
        )
        .container_with(
            "proxy",
            "proxy:1",
            json!({
                "ports": [{ "name": "http", "containerPort": 5432, "hostPort": 5432 }],
                "readinessProbe": { "httpGet": { "port": "http" }, "successThreshold": 2 },
                "livenessProbe": { "tcpSocket": { "port": "http" } }, "resizePolicy": resize,
                "lifecycle": { "preStop": { "httpGet": { "port": "http" } } },
            }),
        )
        .container_with(
            "app",
            image,
            json!({
                "ports": [{ "name": "web", "containerPort": 8000, "hostPort": 8000 }],
                "env": [{ "name": "GOMEMLIMIT", "valueFrom": { "resourceFieldRef": memory } }],
                "resources": { "limits": { "memory": "128Mi" } }, "resizePolicy": resize,
                "readinessProbe": exec, "livenessProbe": exec, "startupProbe": exec,
                "lifecycle": { "postStart": exec, "preStop": exec },
                "volumeMounts": mounts,
            }),
        )
        .with(json!({ "spec": {
            "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "hostname": "shop", "subdomain": "shop",
            "readinessGates": [{ "conditionType": "example.com/theirs" }],
            "volumes": volumes,
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        term(&own), of_revision(term(&json!({ "matchLabels": { "component": "db" } }))),
                    ],
                    "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 1, "podAffinityTerm": of_revision(term(&json!({}))) }],
                },
                "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] },
                ] } },
            },
            "topologySpreadConstraints": [spread("DoNotSchedule"), spread("ScheduleAnyway")],
        } }))
}

fn shared_volumes() -> Value {
    let claim = json!({ "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    json!([
        { "name": "media", "persistentVolumeClaim": { "claimName": "media" } },
        { "name": "own", "ephemeral": { "volumeClaimTemplate": claim } },
        { "name": "info", "downwardAPI": { "items": [
            { "path": "memory", "resourceFieldRef": { "containerName": "app", "resource": "limits.memory" } },
        ] } },
    ])
}

fn claim(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
    } })
}

/// The Pod of the run, as the API server has it, after its migration succeeded.
async fn migrated(shop: &Shop, image: &str) -> Value {
    let name = shop.run_starts(image).await;
    let pods: Api<Pod> = shop.namespace.api();
    let pod = pods.get(&name).await.expect("the run's Pod");
    shop.namespace.end_container(&name, names::RUN_CONTAINER, 0, "").await;
    shop.until_done(image).await;
    serde_json::to_value(pod.spec).expect("JSON")
}

fn names_of(containers: &Value) -> Vec<&str> {
    containers.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_with_everything_odd_in_it_makes_a_run() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    let media: PersistentVolumeClaim = serde_json::from_value(claim("media")).expect("a claim");
    shop.namespace.api().create(&PostParams::default(), &media).await.expect("a claim");
    let shop_migrator = migrator("shop").selecting("app", "shop").named_container("app").with(json!({ "spec": {
        "command": ["migrate"], "keepContainers": ["proxy"], "serviceAccountName": "default",
        "env": [{ "name": "LOCK_TIMEOUT", "value": "5s" }], "envFrom": [{ "secretRef": { "name": "ddl", "optional": true } }],
        "resources": { "limits": { "memory": "64Mi" } }, "activeDeadlineSeconds": 600, "labels": { "app": "shop" },
    } }));
    shop.namespace.create(&shop_migrator).await;
    shop.until_reason("Idle").await;

    let mut volumes = shared_volumes();
    volumes.as_array_mut().expect("a list").push(json!({ "name": "data", "emptyDir": {} }));
    let web: Object<Deployment> = deployment("web").template(&odd_pod("shop:v1", &volumes)).replicas(1);
    shop.namespace.create(&web).await;
    let run = migrated(&shop, "shop:v1").await;
    assert_eq!(names_of(&run["containers"]), ["migrations"]);
    assert_eq!(names_of(&run["initContainers"]), ["config", "mesh", "proxy"]);
    assert!(!run.to_string().contains("hostPort"), "{run:#}");
    assert_eq!(run.pointer("/initContainers/2/startupProbe/httpGet/port"), Some(&json!(5432)));
    assert_eq!(run["readinessGates"], json!([{ "conditionType": names::NEVER_READY_GATE }]));
    assert_eq!(run.pointer("/affinity/nodeAffinity").map(|it| it.to_string().contains(NODE)), Some(false));

    // One of its Pods holds the claim on a node now.
    let serving = |pods: &[Pod]| pods.iter().find(|pod| !shop.is_run(pod)).map(ResourceExt::name_any);
    let serving = shop.namespace.until::<Pod, _>("a Pod of the Deployment", serving).await;
    shop.namespace.start_pod(&serving).await;
    let data = [claim("data")];
    let database: Object<StatefulSet> = stateful_set("database")
        .template(&odd_pod("shop:v2", &shared_volumes()))
        .replicas(1)
        .with(json!({ "spec": { "volumeClaimTemplates": data } }));
    shop.namespace.create(&database).await;
    let run = migrated(&shop, "shop:v2").await;
    let terms = run
        .pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    let pinned = json!([{
        "matchExpressions": [{ "key": "disk", "operator": "Exists" }],
        "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [NODE] }],
    }]);
    assert_eq!(terms, Some(&pinned));
    let volumes = run["volumes"].as_array().expect("volumes");
    let data = volumes.iter().find(|volume| volume["name"] == "data").expect("a volume for the claim");
    assert_eq!(data["emptyDir"], json!({}));
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_pod_with_all_admission_defaults_makes_a_run() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let controller = shop.controller();
    let pods: Api<Pod> = shop.namespace.api();
    let volumes = ["media", "own", "data"].map(|name| json!({ "name": name, "emptyDir": {} }));
    let bare = odd_pod("shop:v1", &json!(volumes)).namespace(shop.namespace.name()).build();
    let bare = Pod { metadata: ObjectMeta { uid: None, ..bare.metadata }, status: None, ..bare };
    let bare = pods.create(&PostParams::default(), &bare).await.expect("a Pod");
    shop.namespace.start_pod(&bare.name_any()).await;
    let spec = bare.spec.expect("a spec");
    assert!(spec.priority.is_some() && spec.tolerations.is_some(), "admission has been there");

    let shop_migrator = migrator("shop").selecting("app", "shop").named_container("app").command(["migrate"]);
    shop.namespace.create(&shop_migrator).await;
    let run = migrated(&shop, "shop:v1").await;
    let generated: Vec<_> =
        names_of(&run["volumes"]).into_iter().filter(|name| name.starts_with("kube-api-access-")).collect();
    let theirs = spec.volumes.iter().flatten().find(|volume| volume.name.starts_with("kube-api-access-"));
    assert_eq!(generated.len(), 1, "{generated:?}");
    assert_ne!(Some(generated[0]), theirs.map(|volume| volume.name.as_str()));
    assert_eq!(run["tolerations"].as_array().map(Vec::len), spec.tolerations.map(|all| all.len()));
    controller.stop().await;
}
