//! What the Job is called, whose it is, and what tells it from another run's.

use migrations_core::job::run_hash;
use rstest::rstest;
use serde_json::{Value, json};

use super::fixture::{job, run, template, valid};
use crate::world::{self, World};

#[test]
fn a_job_has_one_pod_one_attempt_and_waits_to_be_started() {
    let mut spec =
        job(json!({ "activeDeadlineSeconds": 60 }), &template(json!({}), json!({})))["spec"].take();
    spec.as_object_mut().unwrap().remove("template");
    let expected = json!({
        "suspend": true, "parallelism": 1, "completions": 1, "backoffLimit": 0, "podReplacementPolicy": "Failed",
    });
    assert_eq!(spec, expected);
}

#[test]
fn the_migrator_is_its_controller() {
    let job = job(json!({}), &template(json!({}), json!({})));
    let owner = &job["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"], &owner["controller"]),
        (&json!("Migrator"), &json!("uid-shop"), &json!(true))
    );
}

#[test]
fn names_and_label_of_a_long_migrator_are_cut_to_63() {
    let mut snapshot = World::new().snapshot();
    snapshot.name = "a-shop.".repeat(20);
    let job = run(json!({}), &snapshot, &template(json!({}), json!({}))).unwrap().job;
    let metadata = &job["metadata"];
    assert!(metadata["name"].as_str().unwrap().len() <= 63, "{metadata}");
    assert!(metadata["labels"]["migrations"].as_str().unwrap().len() <= 63, "{metadata}");
    assert_eq!(metadata["ownerReferences"][0]["name"], json!(snapshot.name));
}

/// The labels and annotations of the workload never reach the run, those of the spec do.
#[test]
fn labels_and_annotations_are_the_specs_and_the_operators() {
    let mut template = template(json!({}), json!({}));
    template["metadata"]["annotations"] = json!({ "prometheus.io/scrape": "true" });
    let migrator = json!({
        "labels": { "team": "shop", "migrations": "mine" },
        "annotations": {
            "note": "x", "migrations.coderanger.net/no-wait": "false", "karpenter.sh/do-not-disrupt": "false",
        },
    });
    let job = job(migrator, &template);
    let labels = json!({ "team": "shop", "migrations": "shop" });
    assert_eq!(job["metadata"]["labels"], labels);
    let pod = json!({
        "labels": labels,
        "annotations": {
            "note": "x",
            "migrations.coderanger.net/no-wait": "true",
            "karpenter.sh/do-not-disrupt": "true",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        },
    });
    assert_eq!(job["spec"]["template"]["metadata"], pod);
}

#[rstest]
#[case::same(json!({}), "shop:v1", true)]
#[case::another_command(json!({ "command": ["x"] }), "shop:v1", false)]
#[case::another_variable(json!({ "env": [{ "name": "A", "value": "b" }] }), "shop:v1", false)]
#[case::another_sidecar(json!({ "keepContainers": ["proxy"] }), "shop:v1", false)]
#[case::another_template(json!({}), "shop:v2", false)]
fn the_hash_tells_runs_apart(#[case] spec: Value, #[case] image: &str, #[case] same: bool) {
    let template = |image: &str| world::template("web", image, None);
    let first = run_hash(&valid(json!({})), &template("shop:v1"), None);
    assert_eq!(first == run_hash(&valid(spec), &template(image), None), same);
}

#[test]
fn a_restart_by_annotation_is_the_same_run() {
    let (mut one, other) = (world::template("web", "shop:v1", None), world::template("web", "shop:v1", None));
    one["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/restartedAt": "now" });
    assert_eq!(run_hash(&valid(json!({})), &one, None), run_hash(&valid(json!({})), &other, None));
}
