//! The Job of one Pod of every kind, found by the same survey that decisions use.

use std::collections::BTreeMap;

use migrations_core::snapshot::{ClaimFacts, OwnerRef, Owners};
use migrations_core::survey::survey;
use migrations_core::validate::validate;
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{run, with};
use crate::world::{World, owner};

/// A Pod template as the API server stores it: with its defaults.
fn template(spec: Value) -> Value {
    let container = json!({
        "name": "app", "image": "shop:v1", "imagePullPolicy": "IfNotPresent", "args": ["serve"],
        "env": [{ "name": "DATABASE_URL", "valueFrom": { "secretKeyRef": { "name": "shop", "key": "url" } } }],
        "ports": [{ "name": "http", "containerPort": 8000, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/", "port": "http", "scheme": "HTTP" }, "periodSeconds": 10 },
        "resources": { "limits": { "memory": "128Mi" } },
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    let defaults = json!({
        "containers": [container], "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
    });
    json!({ "metadata": { "labels": { "app": "shop" } }, "spec": with(defaults, spec) })
}

fn controlled_by(owner: &OwnerRef) -> Value {
    json!([{ "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": true }])
}

/// What each kind has that the others haven't.
fn deployment() -> Vec<(OwnerRef, Value)> {
    let (set, deployment) = (owner("apps/v1", "ReplicaSet", "web-1"), owner("apps/v1", "Deployment", "web"));
    let spec = json!({
        "serviceAccountName": "shop", "serviceAccount": "shop",
        "initContainers": [
            { "name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
              "startupProbe": { "tcpSocket": { "port": 5432 } }, "ports": [{ "containerPort": 5432, "hostPort": 5432 }] },
        ],
        "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "shop" } }, "matchLabelKeys": ["pod-template-hash"] }],
    });
    let mut of_set = template(spec.clone());
    of_set["metadata"]["labels"]["pod-template-hash"] = json!("1");
    let metadata = json!({ "ownerReferences": controlled_by(&deployment) });
    vec![
        (set, json!({ "metadata": metadata, "spec": { "template": of_set } })),
        (deployment, json!({ "spec": { "template": template(spec) } })),
    ]
}

/// Its Pods' claim is no volume of its template.
fn stateful_set() -> Vec<(OwnerRef, Value)> {
    let mut template = template(
        json!({ "subdomain": "shop", "hostname": "shop", "volumes": [{ "name": "tmp", "emptyDir": {} }] }),
    );
    template["spec"]["containers"][0]["volumeMounts"] =
        json!([{ "name": "data", "mountPath": "/data" }, { "name": "tmp", "mountPath": "/tmp" }]);
    let spec = json!({ "template": template, "volumeClaimTemplates": [{ "metadata": { "name": "data" } }] });
    vec![(owner("apps/v1", "StatefulSet", "web"), json!({ "spec": spec }))]
}

fn daemon_set() -> Vec<(OwnerRef, Value)> {
    let mut template = template(json!({ "hostNetwork": true, "tolerations": [{ "operator": "Exists" }] }));
    template["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(8000);
    vec![(owner("apps/v1", "DaemonSet", "web"), json!({ "spec": { "template": template } }))]
}

fn job_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = json!("1");
    template
}

fn cron_job() -> Vec<(OwnerRef, Value)> {
    let (job, cron_job) = (owner("batch/v1", "Job", "web-1"), owner("batch/v1", "CronJob", "web"));
    let template = template(json!({ "restartPolicy": "OnFailure", "activeDeadlineSeconds": 60 }));
    let metadata = json!({ "ownerReferences": controlled_by(&cron_job) });
    vec![
        (job, json!({ "metadata": metadata, "spec": { "template": job_of(&template) } })),
        (cron_job, json!({ "spec": { "jobTemplate": { "spec": { "template": template } } } })),
    ]
}

fn job() -> Vec<(OwnerRef, Value)> {
    let template = job_of(&template(json!({ "restartPolicy": "OnFailure", "activeDeadlineSeconds": 60 })));
    vec![(owner("batch/v1", "Job", "web"), json!({ "spec": { "template": template } }))]
}

/// Its template lives in the Deployment that it took over, and nothing fills in defaults of its own.
fn rollout() -> Vec<(OwnerRef, Value)> {
    let (set, rollout) =
        (owner("apps/v1", "ReplicaSet", "web-1"), owner("argoproj.io/v1alpha1", "Rollout", "web"));
    let target = OwnerRef { uid: None, ..owner("apps/v1", "Deployment", "web") };
    let template = template(json!({}));
    let metadata = json!({ "ownerReferences": controlled_by(&rollout) });
    let reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" });
    vec![
        (set, json!({ "metadata": metadata, "spec": { "template": template } })),
        (rollout, json!({ "spec": { "workloadRef": reference } })),
        (target, json!({ "spec": { "replicas": 0, "template": template } })),
    ]
}

fn replication_controller() -> Vec<(OwnerRef, Value)> {
    let claim = json!({ "name": "media", "persistentVolumeClaim": { "claimName": "media" } });
    let mut template = template(json!({ "volumes": [claim] }));
    template["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "media", "mountPath": "/media" }]);
    vec![(owner("v1", "ReplicationController", "web"), json!({ "spec": { "template": template } }))]
}

/// With all that admission has put into it.
fn bare_pod() -> Vec<(OwnerRef, Value)> {
    let tolerations = ["not-ready", "unreachable"].map(|taint| {
        json!({ "key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 })
    });
    let mut pod = template(json!({
        "nodeName": "node-1", "enableServiceLinks": true, "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
        "serviceAccount": "default", "serviceAccountName": "default", "tolerations": tolerations,
        "initContainers": [{ "name": "migrate-wait-shop", "image": "waiter",
            "volumeMounts": [{ "name": "migrations-waiter", "mountPath": "/waiter" }] }],
        "volumes": [{ "name": "migrations-waiter", "projected": {} }, { "name": "kube-api-access-x7k2p", "projected": {} }],
    }));
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }]);
    let itself = OwnerRef { uid: Some("uid-web-0".to_owned()), ..owner("v1", "Pod", "web-0") };
    vec![(itself, with(pod, json!({ "apiVersion": "v1", "kind": "Pod" })))]
}

#[rstest]
#[case::deployment("deployment", deployment())]
#[case::stateful_set("stateful_set", stateful_set())]
#[case::daemon_set("daemon_set", daemon_set())]
#[case::cron_job("cron_job", cron_job())]
#[case::job("job", job())]
#[case::rollout("rollout", rollout())]
#[case::replication_controller("replication_controller", replication_controller())]
#[case::bare_pod("bare_pod", bare_pod())]
fn a_pod_of_every_kind_has_a_job(#[case] kind: &str, #[case] objects: Vec<(OwnerRef, Value)>) {
    let mut world = World::new();
    let pod = world.pod("web", "shop:v1");
    pod.name = "web-0".to_owned();
    pod.uid = "uid-web-0".to_owned();
    pod.owner = objects.first().map(|(reference, _)| reference.clone()).filter(|it| it.kind != "Pod");
    pod.node = Some("node-1".to_owned());
    pod.claims = vec!["media".to_owned()];
    let mut snapshot = world.snapshot();
    snapshot.claims =
        BTreeMap::from([("media".to_owned(), ClaimFacts { access_modes: vec!["ReadWriteOnce".to_owned()] })]);

    let owners: Owners = objects.into_iter().map(|(reference, object)| (reference, Some(object))).collect();
    let valid = validate(&world.spec).unwrap();
    let surveyed = survey(&valid, &snapshot.pods, &owners);
    let template = surveyed.members[0].origin.template.unwrap();
    let migrator = json!({
        "command": ["python", "manage.py"], "args": ["migrate"], "env": [{ "name": "LOCK_TIMEOUT", "value": "5s" }],
        "serviceAccountName": "ddl", "labels": { "team": "shop" }, "annotations": { "note": "x" },
    });
    insta::assert_json_snapshot!(kind, run(migrator, &snapshot, template).unwrap().job);
}
