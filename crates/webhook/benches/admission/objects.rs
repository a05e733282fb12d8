//! The objects of the measurement: Migrators, and a review of about 3 KB as an API server sends it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use migrations_protocol::TOKEN_AUDIENCE;
use serde_json::{Value, json};

/// Questions that a Pod may have held.
const OF_A_POD: usize = 4;

/// The Pod of a waiter: as few as may be, since what the API server knows of them takes memory as well.
pub(crate) fn pod_of(waiter: usize) -> usize {
    waiter / OF_A_POD
}

/// The token of a Pod.
pub(crate) fn token(pod: usize) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"jti": pod}).to_string()))
}

/// What the API server says of it.
pub(crate) fn token_status(pod: usize) -> Value {
    let name = format!("web-{pod}");
    json!({
        "authenticated": true, "audiences": [TOKEN_AUDIENCE],
        "user": { "username": format!("system:serviceaccount:{NAMESPACE}:default"), "extra": {
            "authentication.kubernetes.io/pod-name": [name], "authentication.kubernetes.io/pod-uid": [name],
        } },
    })
}

/// The namespace of the Pod that is reviewed.
pub(crate) const NAMESPACE: &str = "shop";

/// The image of that Pod.
pub(crate) const IMAGE: &str = "registry.example.com/shop/web:2.14.3";

/// The first Migrators, whose names begin with `matching`, select the Pod.
pub(crate) fn migrator(index: usize, matching: usize, namespaces: usize) -> Value {
    let selected = index < matching;
    let (name, instance) = if selected {
        (format!("matching-{index}"), "shop-web".to_owned())
    } else {
        (format!("other-{index}"), format!("other-{index}"))
    };
    let namespace = match index % namespaces {
        other if other > 0 && !selected => format!("other-{other}"),
        _ => NAMESPACE.to_owned(),
    };
    json!({
        "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{index:08}-aaaa-bbbb-cccc-ddddeeeeffff")},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/component": "web", "app.kubernetes.io/instance": instance}},
            "command": ["python", "manage.py", "migrate", "--noinput"],
        },
        "status": {"done": [{"key": "registry.example.com/shop/web:2.14.2",
            "image": "registry.example.com/shop/web:2.14.2", "how": "Succeeded"}]},
    })
}

/// The Migrator that held questions ask about, once the Pod's image is done.
pub(crate) fn migrator_done() -> Value {
    let mut migrator = migrator(0, 1, 1);
    migrator["status"]["done"] = json!([{"key": IMAGE, "image": IMAGE, "how": "Succeeded"}]);
    migrator
}

/// A review of a new Pod of a Deployment, as it comes after the API server's defaults.
pub(crate) fn review() -> String {
    let variable = |index: usize| json!({"name": format!("SETTING_{index}"), "value": format!("value of the setting {index}")});
    let secret = |name: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "shop-web", "key": name.to_lowercase()}}});
    let probe = |path: &str| {
        json!({"httpGet": {"path": path, "port": 8000, "scheme": "HTTP"}, "timeoutSeconds": 1,
               "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
    };
    let mut environment: Vec<_> = (0..6).map(variable).collect();
    environment.extend(["DATABASE_URL", "SECRET_KEY"].map(secret));
    let token = "kube-api-access-x7k2p";
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": NAMESPACE, "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "5d2f2b5e-6e0c-4a5c-8a53-2f3a9d8d3a11",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": {
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {
                    "generateName": "shop-web-6f8c9d7b5-",
                    "creationTimestamp": null,
                    "labels": {
                        "app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "shop-web",
                        "app.kubernetes.io/component": "web", "app.kubernetes.io/version": "2.14.3",
                        "pod-template-hash": "6f8c9d7b5",
                    },
                    "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-web-6f8c9d7b5",
                        "uid": "0f3c1f0e-8d1a-4c53-9f3a-7f1d0c2b4a55", "controller": true, "blockOwnerDeletion": true}],
                },
                "spec": {
                    "volumes": [{"name": token, "projected": {"defaultMode": 420, "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                        {"downwardAPI": {"items": [{"path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
                    ]}}],
                    "containers": [{
                        "name": "web", "image": IMAGE, "args": ["gunicorn", "shop.wsgi", "--bind=0.0.0.0:8000"],
                        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                        "env": environment,
                        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "512Mi"}},
                        "volumeMounts": [{"name": token, "readOnly": true,
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
                        "livenessProbe": probe("/livez"), "readinessProbe": probe("/readyz"),
                        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                        "imagePullPolicy": "IfNotPresent",
                    }],
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "shop-web", "serviceAccount": "shop-web",
                    "securityContext": {"runAsUser": 1000}, "schedulerName": "default-scheduler",
                    "tolerations": [
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    ],
                    "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
                },
                "status": {},
            },
            "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
    .to_string()
}
