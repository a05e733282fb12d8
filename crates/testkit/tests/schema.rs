//! What a real API server says of Migrators: rules at apply time (contract §2), objects of the
//! original, objects older than a rule, and `kubectl explain`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, CustomResourceExt};
use migrations_api::{Migrator, MigratorStatus};
use migrations_testkit::cluster::{ControlPlane, TestNamespace};
use serde::Deserialize;
use serde_json::{Value, json};

/// Migrators as JSON, so that nothing is changed on the way.
fn migrators(namespace: &TestNamespace) -> Api<DynamicObject> {
    Api::namespaced_with(namespace.client(), namespace.name(), &ApiResource::erase::<Migrator>(&()))
}

async fn create(namespace: &TestNamespace, name: &str, object: &Value) -> Result<(), String> {
    create_with(PostParams::default(), namespace, name, object).await
}

/// Whether it would be created.
async fn accepts(namespace: &TestNamespace, object: &Value) -> bool {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    create_with(params, namespace, "would-be", object).await.is_ok()
}

async fn create_with(
    params: PostParams,
    namespace: &TestNamespace,
    name: &str,
    object: &Value,
) -> Result<(), String> {
    let mut object = object.clone();
    object["apiVersion"] = json!("migrations.coderanger.net/v1beta1");
    object["kind"] = json!("Migrator");
    object["metadata"]["name"] = json!(name);
    let object = serde_json::from_value(object).unwrap();
    let created = migrators(namespace).create(&params, &object).await;
    created.map(drop).map_err(|error| message(&error))
}

async fn edit(namespace: &TestNamespace, name: &str, spec: &Value) -> Result<(), String> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let edited = migrators(namespace).patch(name, &PatchParams::default(), &patch).await;
    edited.map(drop).map_err(|error| message(&error))
}

/// As the controller writes it, with all that a status may hold.
async fn write_status(namespace: &TestNamespace, name: &str) {
    let status: MigratorStatus = serde_json::from_value(json!({
        "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
        }],
        "lastSuccessfulMigration": "shop:v1",
        "waiting": 1,
    }))
    .unwrap();
    let migrators: Api<Migrator> = namespace.api();
    let mut migrator = migrators.get(name).await.unwrap();
    migrator.status = Some(status.clone());
    let written = migrators.replace_status(name, &PostParams::default(), &migrator).await;
    let written = written.unwrap_or_else(|error| panic!("status of {name}: {}", message(&error)));
    assert_eq!(written.status, Some(status));
}

/// What kubectl shows.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("no answer: {other}"),
    }
}

fn spec_with(field: &str, value: &Value) -> Value {
    let mut spec = json!({ "selector": { "matchLabels": { "app": "shop" } } });
    spec[field] = value.clone();
    spec
}

fn expression(expression: &Value) -> Value {
    json!({ "matchExpressions": [expression] })
}

#[tokio::test]
async fn what_cannot_work_is_refused_in_words_that_name_field_and_fix() {
    const OPERATORS: &str = r#"supported values: "In", "NotIn", "Exists", "DoesNotExist""#;
    let namespace = ControlPlane::shared().await.namespace().await;
    let rows = [
        ("selector", expression(&json!({ "key": "app", "operator": "Is" })),
            format!(r#"spec.selector.matchExpressions[0].operator: Unsupported value: "Is": {OPERATORS}"#)),
        ("selector", expression(&json!({ "key": "app", "operator": "In" })),
            "spec.selector.matchExpressions[0].values: Invalid value: In and NotIn compare the label with values: add at least one".to_owned()),
        ("templateSelector", expression(&json!({ "key": "app", "operator": "Exists", "values": ["a"] })),
            "spec.templateSelector.matchExpressions[0].values: Invalid value: Exists and DoesNotExist take no values: remove them, or use In or NotIn".to_owned()),
        ("backoffLimit", json!(-1),
            "spec.backoffLimit: Invalid value: -1: must be 0 or more; 0: a failed migration is never tried again by itself".to_owned()),
        ("activeDeadlineSeconds", json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be from 1 to 2147483647 seconds; leave it out for no limit".to_owned()),
        ("successfulJobsHistoryLimit", json!(-1),
            "spec.successfulJobsHistoryLimit: Invalid value: -1: must be 0 or more; 0: none is kept".to_owned()),
        ("failedJobsHistoryLimit", json!(-1),
            "spec.failedJobsHistoryLimit: Invalid value: -1: must be 0 or more; 0: none is kept".to_owned()),
        ("rerunOn", json!("Always"),
            r#"spec.rerunOn: Unsupported value: "Always": supported values: "Image", "Template""#.to_owned()),
        ("lock", json!("Orders"),
            r#"spec.lock: Invalid value: "Orders": a lock's name holds"#.to_owned()),
        ("lock", json!("o".repeat(64)), "spec.lock: Too long: may not be more than 63".to_owned()),
        ("serviceAccountName", json!("shop_ddl"),
            r#"spec.serviceAccountName: Invalid value: "shop_ddl": not the name of a service account"#.to_owned()),
        ("keepContainers", json!(["proxy", "proxy"]),
            r#"spec.keepContainers[1]: Duplicate value: "proxy""#.to_owned()),
        ("keepContainers", json!(["Proxy"]),
            r#"spec.keepContainers[0]: Invalid value: "Proxy": not the name of a container"#.to_owned()),
        ("env", json!([{ "name": "A=1" }]),
            r#"spec.env[0].name: Invalid value: "A=1": a variable's name has at least one character and no `=`"#.to_owned()),
        ("env", json!([{ "name": "A", "value": "1", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]),
            "a variable has either `value` or `valueFrom`: remove one".to_owned()),
        ("env", json!([{ "name": "A", "value": "1" }, { "name": "A", "value": "2" }]),
            r#"spec.env[1]: Duplicate value: {"name":"A"}"#.to_owned()),
    ];
    for (field, value, said) in rows {
        let refused = create(&namespace, "shop", &json!({ "spec": spec_with(field, &value) })).await;
        let refused = refused.expect_err(&said);
        assert!(refused.contains(&said), "{field} {value}:\n{refused}\nis not\n{said}");
    }
}

#[tokio::test]
async fn what_can_work_is_accepted_and_kept_as_written() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let rows = [
        ("resources", json!({ "limits": { "cpu": 1, "memory": "1Gi" }, "newer": { "kept": true } })),
        (
            "env",
            json!([
                { "name": "spring.datasource.url", "value": "jdbc:postgresql://db/shop?user=ddl" },
                { "name": "URL", "valueFrom": { "secretKeyRef": { "name": "shop", "key": "url" } } },
                { "name": "FILE", "valueFrom": { "fileKeyRef": { "volumeName": "a", "path": "b", "key": "c" } } },
            ]),
        ),
        ("envFrom", json!([{ "prefix": "A_", "secretRef": { "name": "shop" }, "newer": { "kept": true } }])),
        ("backoffLimit", json!(0)),
        ("keepContainers", json!(["proxy", "vault-agent"])),
        ("lock", json!("orders-db.eu-1")),
        ("lock", json!("")),
        ("serviceAccountName", json!("shop.ddl")),
    ];
    for (number, (field, value)) in rows.iter().enumerate() {
        let name = format!("shop-{number}");
        let created = create(&namespace, &name, &json!({ "spec": spec_with(field, value) })).await;
        assert_eq!(created, Ok(()), "{field} {value}");
        // Read by our type and written back, as any program does that edits one.
        let migrator = namespace.api::<Migrator>().get(&name).await.unwrap();
        assert_eq!(serde_json::to_value(&migrator).unwrap()["spec"][field], *value);
    }
}

#[tokio::test]
async fn what_is_left_empty_counts_as_left_out() {
    let namespace = ControlPlane::shared().await.namespace().await;
    for field in fields().iter().filter(|field| *field != "selector") {
        let name = format!("without-{}", field.to_lowercase());
        let created = create(&namespace, &name, &json!({ "spec": spec_with(field, &Value::Null) })).await;
        assert_eq!(created, Ok(()), "{field}: null");
        write_status(&namespace, &name).await;
    }
}

/// The fields of a spec.
fn fields() -> BTreeSet<String> {
    let definition = serde_json::to_value(Migrator::crd()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_samples_can_be_applied_and_show_every_field() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let smallest = sample("migrator.yaml");
    let whole = uncommented(&smallest);
    let mut shown = BTreeSet::new();
    for text in [&smallest, &whole, &sample("ddl-account.yaml"), &sample("django/migrator.yaml")] {
        let documents = serde_yaml_ng::Deserializer::from_str(text);
        let objects = documents.map(|document| DynamicObject::deserialize(document).unwrap());
        for object in objects.filter(|object| object.types.as_ref().unwrap().kind == "Migrator") {
            let params = PatchParams::apply("kubectl").validation_strict();
            let name = object.metadata.name.as_ref().unwrap();
            let applied = migrators(&namespace).patch(name, &params, &Patch::Apply(&object)).await;
            applied.unwrap_or_else(|error| panic!("{name}: {}", message(&error)));
            shown.extend(object.data["spec"].as_object().unwrap().keys().cloned());
        }
    }
    assert_eq!(shown, fields());
}

fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

/// A sample with the fields that it shows in comments.
fn uncommented(sample: &str) -> String {
    let is_field = |text: &str| {
        let key = text.trim_start().trim_start_matches("- ").split(':').next().unwrap_or_default();
        text.contains(':') && !key.trim_end().contains(' ')
    };
    let line = |line: &str| match line.strip_prefix("  # ") {
        Some(text) if is_field(text) => format!("  {text}\n"),
        _ => format!("{line}\n"),
    };
    sample.lines().map(line).collect()
}

/// What the original accepted: its samples, its tests, and what nothing there refused.
fn of_the_original() -> Vec<(&'static str, Value)> {
    let command = json!(["python", "manage.py", "migrate"]);
    let spec = |fields: Value| {
        let mut spec = json!({ "selector": { "matchLabels": { "app": "shop" } } });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({ "spec": spec })
    };
    vec![
        ("simple", spec(json!({ "command": command }))),
        (
            "whole",
            spec(json!({
                "templateSelector": { "matchLabels": { "role": "leader" } }, "command": command, "args": ["--no-input"],
                "image": "shop:ddl", "container": "app", "labels": { "team": "a" }, "annotations": { "note": "b" },
            })),
        ),
        ("empty-selector", json!({ "spec": { "selector": {} } })),
        ("empty-labels", json!({ "spec": { "selector": { "matchLabels": {} } } })),
        ("empty-expressions", json!({ "spec": { "selector": { "matchExpressions": [] } } })),
        (
            "expressions",
            json!({ "spec": { "selector": { "matchExpressions": [
            { "key": "app", "operator": "In", "values": ["shop", "worker"] },
            { "key": "app", "operator": "NotIn", "values": ["cron"] },
            { "key": "team", "operator": "Exists", "values": [] },
            { "key": "canary", "operator": "DoesNotExist" },
        ] } } }),
        ),
        ("empty-template-selector", spec(json!({ "templateSelector": {} }))),
        ("empty-strings", spec(json!({ "image": "", "container": "", "command": [], "args": [""] }))),
        ("odd-labels", spec(json!({ "labels": { "": "no label value!" }, "annotations": { "a/b/c": "" } }))),
        ("no-spec", json!({})),
        ("name.with.dots", spec(json!({}))),
        (
            "0-a-name-as-long-as-names-may-be-which-is-far-more-than-fits-into-a-label-or-into-the-name-of-a-container\
            .and-that-goes-on-and-on.and-on.and-on.and-on.and-on.and-on.and-on.and-on.and-on.and-on.and-on.and-on\
            .and-on.and-on.and-on.and-on.and-on.and-on.a",
            spec(json!({})),
        ),
    ]
}

#[tokio::test]
async fn what_the_original_accepted_is_accepted_and_gets_its_status() {
    let namespace = ControlPlane::shared().await.namespace().await;
    for (name, object) in of_the_original() {
        assert_eq!(create(&namespace, name, &object).await, Ok(()), "{name}");
        write_status(&namespace, name).await;
    }
}

/// The definition as the original's was: types, and no rules.
fn definition_of_the_original() -> CustomResourceDefinition {
    let strings = json!({ "type": "object", "additionalProperties": { "type": "string" } });
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let text = json!({ "type": "string" });
    let selector = json!({
        "type": "object", "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": strings,
            "matchExpressions": { "type": "array", "items": {
                "type": "object", "required": ["key", "operator"],
                "properties": { "key": text, "operator": text, "values": list },
            } },
        },
    });
    let status = json!({ "type": "object", "properties": { "lastSuccessfulMigration": text } });
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "required": ["selector"], "properties": {
            "selector": selector, "templateSelector": selector, "command": list, "args": list,
            "image": text, "container": text, "labels": strings, "annotations": strings,
        } },
        "status": status,
    } });
    let mut definition = serde_json::to_value(Migrator::crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
    serde_json::from_value(definition).unwrap()
}

#[tokio::test]
async fn an_object_older_than_a_rule_gets_its_status_and_other_fields_can_be_edited() {
    let plane = ControlPlane::start_without_crds().await;
    let namespace = plane.namespace().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(plane.client());
    definitions.create(&PostParams::default(), &definition_of_the_original()).await.unwrap();
    // The API server serves a new kind a moment later.
    until_ok(async || accepts(&namespace, &json!({ "spec": { "selector": {} } })).await).await;

    let broken = [
        ("operator", expression(&json!({ "key": "app", "operator": "Is" }))),
        ("in", expression(&json!({ "key": "app", "operator": "In" }))),
        ("exists", expression(&json!({ "key": "app", "operator": "Exists", "values": ["a"] }))),
    ];
    let mut objects = of_the_original();
    for (name, selector) in &broken {
        objects.push((name, json!({ "spec": { "selector": selector, "templateSelector": selector } })));
    }
    for (name, object) in &objects {
        assert_eq!(create(&namespace, name, object).await, Ok(()), "{name}");
    }

    let ours = json!({ "spec": Migrator::crd().spec });
    let name = &Migrator::crd().metadata.name.unwrap();
    definitions.patch(name, &PatchParams::default(), &Patch::Merge(ours)).await.unwrap();
    let refused = expression(&json!({ "key": "app", "operator": "Like" }));
    until_ok(async || !accepts(&namespace, &json!({ "spec": { "selector": refused } })).await).await;

    for (name, _) in &objects {
        write_status(&namespace, name).await;
        assert_eq!(edit(&namespace, name, &json!({ "suspend": true })).await, Ok(()), "{name}");
        write_status(&namespace, name).await;
    }
    for (name, _) in broken {
        // What is edited has to keep the rules.
        let edited = edit(&namespace, name, &json!({ "selector": refused })).await.unwrap_err();
        assert!(edited.contains("Unsupported value: \"Like\""), "{edited}");
        let mended = json!({ "selector": { "matchExpressions": [{ "key": "app", "operator": "Exists" }] } });
        assert_eq!(edit(&namespace, name, &mended).await, Ok(()), "{name}");
    }
}

/// Asks until it is so: the API server takes up a changed definition in its own time, and tells nobody.
async fn until_ok(asked: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if asked().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never was so");
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let plane = ControlPlane::shared().await;
    let paths =
        ["", ".selector.matchExpressions", ".env", ".resources"].map(|path| format!("migrator.spec{path}"));
    // The API server describes a new kind a while after it serves it.
    until_ok(async || explain(plane, &paths[0]).is_ok()).await;
    insta::assert_snapshot!(paths.map(|path| explain(plane, &path).unwrap()).join("---\n"));
}

fn explain(plane: &ControlPlane, path: &str) -> Result<String, String> {
    let kubectl = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS").unwrap()).join("kubectl");
    let output = Command::new(kubectl)
        .arg("--kubeconfig")
        .arg(plane.kubeconfig())
        .arg("--cache-dir")
        .arg(plane.kubeconfig().with_file_name("kubectl-cache"))
        .args(["explain", path])
        .output()
        .unwrap();
    let said = if output.status.success() { Ok(output.stdout) } else { Err(output.stderr) };
    said.map(|said| String::from_utf8(said).unwrap()).map_err(|said| String::from_utf8(said).unwrap())
}
