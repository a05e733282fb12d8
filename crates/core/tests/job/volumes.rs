//! Volumes and their mounts.

use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{cleaned, run, template};
use crate::world::World;

/// Volumes and mounts of a run whose template has these.
fn volumes(spec: Value, container: Value) -> (Value, Value) {
    let mut spec = cleaned(spec, container);
    (spec["volumes"].take(), spec["containers"][0]["volumeMounts"].take())
}

#[test]
fn a_mount_of_a_stateful_sets_claim_becomes_an_empty_directory_and_is_told() {
    let spec = json!({
        "volumes": [{ "name": "config", "configMap": { "name": "shop" } }],
        "initContainers": [{ "name": "prepare", "volumeMounts": [{ "name": "cache", "mountPath": "/cache" }] }],
    });
    let mounts = json!([{ "name": "data", "mountPath": "/data" }, { "name": "config", "mountPath": "/etc" }]);
    let template = template(spec, json!({ "volumeMounts": mounts }));
    let rendered = run(json!({}), &World::new().snapshot(), &template).unwrap();
    assert_eq!(rendered.emptied_claims, ["cache", "data"]);
    let spec = &rendered.job["spec"]["template"]["spec"];
    let expected = json!([
        { "name": "config", "configMap": { "name": "shop" } },
        { "name": "cache", "emptyDir": {} },
        { "name": "data", "emptyDir": {} },
    ]);
    assert_eq!((&spec["volumes"], &spec["containers"][0]["volumeMounts"]), (&expected, &mounts));
}

/// No empty directory can be a raw device.
#[test]
fn a_raw_device_of_a_stateful_sets_claim_is_left_out_and_told() {
    let template =
        template(json!({}), json!({ "volumeDevices": [{ "name": "disk", "devicePath": "/dev/disk" }] }));
    let rendered = run(json!({}), &World::new().snapshot(), &template).unwrap();
    assert_eq!(rendered.emptied_claims, ["disk"]);
    let spec = &rendered.job["spec"]["template"]["spec"];
    assert_eq!((spec.get("volumes"), &spec["containers"][0]["volumeDevices"]), (None, &json!([])));
}

#[rstest]
#[case::claim(json!({ "persistentVolumeClaim": { "claimName": "media" } }))]
#[case::own_claim(json!({ "ephemeral": { "volumeClaimTemplate": { "spec": {} } } }))]
#[case::secret(json!({ "secret": { "secretName": "shop" } }))]
#[case::unknown_to_this_build(json!({ "future": { "deep": true } }))]
fn volumes_of_the_template_stay(#[case] source: Value) {
    let mut volume = source;
    volume["name"] = json!("it");
    let mount = json!([{ "name": "it", "mountPath": "/it" }]);
    let cleaned = volumes(json!({ "volumes": [volume] }), json!({ "volumeMounts": mount }));
    assert_eq!(cleaned, (json!([volume]), mount));
}

#[rstest]
#[case::service_account_token(json!({}), json!({ "name": "kube-api-access-x7", "projected": {} }), false)]
#[case::waiters_token(json!({}), json!({ "name": "migrations-waiter", "projected": {} }), false)]
#[case::token_of_the_users_own(json!({ "automountServiceAccountToken": false }), json!({ "name": "kube-api-access-x7", "projected": {} }), true)]
#[case::another_volume_of_that_name(json!({}), json!({ "name": "kube-api-access-x7", "emptyDir": {} }), true)]
fn generated_volumes_are_dropped_with_their_mounts(
    #[case] spec: Value,
    #[case] volume: Value,
    #[case] stays: bool,
) {
    let mounts = json!([{ "name": volume["name"], "mountPath": "/x" }]);
    let mut spec = spec;
    spec["volumes"] = json!([volume]);
    let (volumes, mounts) = volumes(spec, json!({ "volumeMounts": mounts }));
    let length = |list: &Value| list.as_array().unwrap().len();
    assert_eq!((length(&volumes), length(&mounts)), if stays { (1, 1) } else { (0, 0) });
}

/// A claim that only a dropped sidecar mounts must not bind the run to a node.
#[test]
fn volumes_that_dropped_containers_alone_mount_are_dropped() {
    let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
    let spec = json!({
        "containers": [
            { "name": "app", "image": "shop:v1", "volumeMounts": [mount("shared")] },
            { "name": "logger", "image": "logger:1", "volumeMounts": [mount("shared"), mount("logs")] },
        ],
        "volumes": [{ "name": "shared", "emptyDir": {} }, { "name": "logs", "emptyDir": {} }, { "name": "nobodys", "emptyDir": {} }],
    });
    let spec = cleaned(spec, json!({}));
    assert_eq!(
        spec["volumes"],
        json!([{ "name": "shared", "emptyDir": {} }, { "name": "nobodys", "emptyDir": {} }])
    );
}
