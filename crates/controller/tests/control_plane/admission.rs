//! Admission, played by a policy inside the API server: the waiter comes into Pods as the webhook
//! would write it, and a registry mirror into the images of those that ask for one.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Api, Client};
use migrations_api::names;
use migrations_testkit::builders::pod;
use migrations_testkit::cluster::TestNamespace;
use serde_json::{Value, json};

/// Label of a Pod whose Migrator has that name.
pub(crate) const APP: &str = "app";

/// Label of a Pod whose image comes from a mirror.
pub(crate) const MIRRORED: &str = "mirrored";

/// Where the mirror is.
pub(crate) const MIRROR: &str = "mirror.example/";

const POLICY: &str = "admission";

/// CEL: what names the Pod's revision, as `migrations_core::revision` has it.
const REVISION: &str = r#"
size(variables.controllers) == 0 ? [] :
  size(variables.hashes) > 0 ? ["--revision=" + variables.controllers[0].uid + "/" + variables.hashes[0]] :
  variables.controllers[0].kind == "Job" ? ["--revision=" + variables.controllers[0].uid] : []"#;

const HASHES: &str = r#"
["controller-revision-hash", "pod-template-hash", "rollouts-pod-template-hash"]
  .filter(label, label in object.metadata.labels).map(label, object.metadata.labels[label])"#;

const CONTROLLERS: &str = "has(object.metadata.ownerReferences) ? \
    object.metadata.ownerReferences.filter(owner, has(owner.controller) && owner.controller) : []";

/// Installs the policy, and waits until it is followed. One for both: in which order the API server
/// applies two policies is left to chance, and anew at each change of any.
pub(crate) async fn install(client: Client, somewhere: &TestNamespace) {
    let mirrored = format!(
        r#""{MIRRORED}" in object.metadata.labels ? [JSONPatch{{
            op: "replace", path: "/spec/containers/0/image",
            value: "{MIRROR}" + object.spec.containers[0].image
        }}] : []"#
    );
    let waits = format!(
        // In two steps: a list that holds an object makes the API server panic (1.36).
        r#"[
            JSONPatch{{ op: "add", path: "/spec/initContainers", value: [] }},
            JSONPatch{{ op: "add", path: "/spec/initContainers/-", value: Object.spec.initContainers{{
                name: "{}" + object.metadata.labels.app,
                image: "waiter:v1",
                args: ["--namespace=" + request.namespace, "--migrator=" + object.metadata.labels.app]
                    + object.spec.containers.map(it, "--container=" + it.name + "=" + it.image)
                    + variables.revision
                    + ["--server=webhook:9444", "--server-name=webhook", "--files=/var/run/migrations"]
            }} }}
        ]"#,
        names::WAITER_PREFIX
    );
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": {
            "objectSelector": { "matchExpressions": [{ "key": APP, "operator": "Exists" }] },
            "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
            }],
        },
        "matchConditions": [{ "name": "once", "expression": "!has(object.spec.initContainers)" }],
        "variables": [
            { "name": "controllers", "expression": CONTROLLERS },
            { "name": "hashes", "expression": HASHES },
            { "name": "revision", "expression": REVISION },
        ],
        "mutations": [
            { "patchType": "JSONPatch", "jsonPatch": { "expression": mirrored } },
            { "patchType": "JSONPatch", "jsonPatch": { "expression": waits } },
        ],
    });
    create(client.clone(), "MutatingAdmissionPolicy", POLICY, spec).await;
    create(client, "MutatingAdmissionPolicyBinding", POLICY, json!({ "policyName": POLICY })).await;
    until_followed(somewhere).await;
}

async fn create(client: Client, kind: &str, name: &str, spec: Value) {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&kind);
    let object = DynamicObject::new(name, &resource).data(json!({ "spec": spec }));
    let api = Api::<DynamicObject>::all_with(client, &resource);
    api.create(&PostParams::default(), &object).await.expect("the API server takes the policy");
}

/// The API server takes up a policy within seconds after it is written.
async fn until_followed(namespace: &TestNamespace) {
    let probe = pod("probe").namespace(namespace.name()).label(APP, "shop").label(MIRRORED, "true");
    let probe = probe.container("app", "shop:v1").build();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let pods: Api<Pod> = namespace.api();
    for _ in 0..600 {
        let seen = pods.create(&dry_run, &probe).await.expect("the policy can be followed");
        let args = seen.spec.and_then(|spec| spec.init_containers?.pop()?.args).unwrap_or_default();
        if args.contains(&format!("--container=app={MIRROR}shop:v1")) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the policy is never followed");
}
