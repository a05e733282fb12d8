//! What kustomize and helm render, without a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use migrations_api::names;
use serde_json::{Value, json};

use super::programs::{kustomize, objects, output, program, release, template, template_of};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const KEEP: &str = "helm.sh/resource-policy";

type Objects = BTreeMap<String, Value>;

fn by_name(objects: Vec<Value>) -> Objects {
    let named = objects.into_iter().map(|object| {
        let field = |name: &str| object[name].as_str().unwrap().to_owned();
        let name = object["metadata"]["name"].as_str().unwrap();
        (format!("{} {name}", field("kind")), object)
    });
    named.collect()
}

fn rendered(values: &[&str]) -> Objects {
    by_name(objects(&template(names::OPERATOR_NAMESPACE, values).unwrap()))
}

/// What a chart's objects have besides, which is all that they have.
fn without_helms_own(mut objects: Objects) -> Objects {
    for (name, object) in &mut objects {
        let labels = object["metadata"]["labels"].as_object_mut().unwrap();
        for (label, value) in [
            ("app.kubernetes.io/instance", "migrations".to_owned()),
            ("app.kubernetes.io/managed-by", "Helm".to_owned()),
            ("helm.sh/chart", format!("migrations-operator-{VERSION}")),
        ] {
            assert_eq!(labels.remove(label), Some(json!(value)), "{name}");
        }
        if object["kind"] == "CustomResourceDefinition" {
            let annotations = object["metadata"].as_object_mut().unwrap().remove("annotations");
            assert_eq!(annotations, Some(json!({ KEEP: "keep" })));
        }
    }
    objects
}

#[test]
fn the_chart_renders_what_kustomize_does() {
    let rows: [(&[&str], &[&str]); 5] = [
        (&[], &[]),
        (&["host-network"], &["webhook.hostNetwork=true"]),
        (&["one-replica"], &["controller.replicas=1", "webhook.replicas=1"]),
        (&["pod-monitor"], &["podMonitor.enabled=true"]),
        (
            &["pod-monitor", "one-replica", "host-network"],
            &[
                "podMonitor.enabled=true",
                "controller.replicas=1",
                "webhook.replicas=1",
                "webhook.hostNetwork=true",
            ],
        ),
    ];
    for (components, values) in rows {
        let mut expected = by_name(objects(&kustomize(components)));
        // Helm makes it, or the user did.
        assert!(expected.remove("Namespace migrations-operator").is_some());
        let chart = without_helms_own(rendered(values));
        let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&expected), "{components:?}");
        for (name, object) in &expected {
            assert_eq!(&chart[name], object, "{name} with {components:?}");
        }
    }
}

/// A field of a program's Pod with these values.
fn pod_field(program: &str, values: &[&str], field: &str) -> Value {
    let deployment = rendered(values).remove(&format!("Deployment migrations-{program}")).unwrap();
    deployment["spec"]["template"]["spec"].pointer(field).cloned().unwrap_or_default()
}

#[test]
fn each_value_of_a_program_arrives() {
    for program in ["controller", "webhook"] {
        for (value, field, expected) in [
            (
                "PROGRAM.args={--log=debug,--log-format=text}",
                "/containers/0/args",
                json!(["--log=debug", "--log-format=text"]),
            ),
            ("PROGRAM.resources.limits.memory=1Gi", "/containers/0/resources/limits/memory", json!("1Gi")),
            (
                "PROGRAM.nodeSelector.pool=a",
                "/nodeSelector",
                json!({ "kubernetes.io/os": "linux", "pool": "a" }),
            ),
            ("PROGRAM.tolerations[0].operator=Exists", "/tolerations", json!([{ "operator": "Exists" }])),
            ("PROGRAM.affinity.nodeAffinity.a=b", "/affinity", json!({ "nodeAffinity": { "a": "b" } })),
            ("imagePullSecrets[0].name=a", "/imagePullSecrets", json!([{ "name": "a" }])),
            ("image.pullPolicy=Always", "/containers/0/imagePullPolicy", json!("Always")),
        ] {
            let value = value.replace("PROGRAM", program);
            assert_eq!(pod_field(program, &[&value], field), expected, "{value}");
        }
        let value = format!("{program}.replicas=3");
        assert_eq!(rendered(&[&value])[&format!("Deployment migrations-{program}")]["spec"]["replicas"], 3);
    }
}

#[test]
fn each_image_is_named_by_registry_tag_and_digest() {
    const WAITER: &str = "/containers/0/env/0/value";
    const IMAGE: &str = "/containers/0/image";
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (program, field, of) in
        [("controller", IMAGE, "controller"), ("webhook", IMAGE, "webhook"), ("webhook", WAITER, "waiter")]
    {
        let with_digest = format!("image.digests.{of}={digest}");
        for (values, expected) in [
            (
                &["image.registry=mirror.example:5000/team"][..],
                format!("mirror.example:5000/team/migrations-{of}:{VERSION}"),
            ),
            (&[&with_digest], format!("ghcr.io/coderanger/migrations-{of}:{VERSION}@{digest}")),
            (&["image.tag=edge", &with_digest], format!("ghcr.io/coderanger/migrations-{of}:edge@{digest}")),
        ] {
            assert_eq!(pod_field(program, values, field), expected, "{values:?}");
        }
    }
}

#[test]
fn the_webhook_listens_where_the_values_say() {
    let values =
        ["webhook.ports.admission=10250", "webhook.ports.questions=10251", "webhook.ports.probes=10252"];
    assert_eq!(
        pod_field(
            "webhook",
            &[&values[..], &["webhook.args={--waiter-timeout=9}"]].concat(),
            "/containers/0/args"
        ),
        json!([
            "--admission-port=10250",
            "--question-port=10251",
            "--probe-port=10252",
            "--waiter-timeout=9"
        ])
    );
    let ports = pod_field("webhook", &values, "/containers/0/ports");
    let ports: Vec<_> =
        ports.as_array().unwrap().iter().map(|port| (&port["name"], &port["containerPort"])).collect();
    let expected = [("admission", 10250), ("questions", 10251), ("probes", 10252)];
    assert_eq!(
        ports,
        expected.map(|(name, port)| (json!(name), json!(port))).each_ref().map(|(name, port)| (name, port))
    );
}

#[test]
fn policies_and_monitor_follow_their_values() {
    let with_label = rendered(&["podMonitor.enabled=true", "podMonitor.labels.team=a"]);
    assert_eq!(with_label["PodMonitor migrations-operator"]["metadata"]["labels"]["team"], "a");
    let open = rendered(&["networkPolicies.enabled=false"]);
    assert_eq!(rendered(&[]).len() - open.len(), 4);
    assert!(!open.keys().any(|name| name.starts_with("NetworkPolicy")));
}

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    for (value, part) in [
        ("replicas=1", "'replicas' not allowed"),
        ("webhook.replicas=0", "/webhook/replicas': minimum"),
        ("controller.replicas=two", "/controller/replicas': got string, want integer"),
        ("webhook.ports.admission=443", "/webhook/ports/admission': minimum"),
        ("webhook.hostnetwork=true", "'hostnetwork' not allowed"),
        ("webhook.args={waiter-timeout=9}", "/webhook/args/0': 'waiter-timeout=9' does not match pattern"),
        ("webhook.args={--admission-port=10250}", "/webhook/args/0': 'not' failed"),
        ("webhook.args={--waiter-image=a}", "/webhook/args/0': 'not' failed"),
        (
            "image.registry=ghcr.io/coderanger/",
            "/image/registry': 'ghcr.io/coderanger/' does not match pattern",
        ),
        ("image.digests.waiter=sha256:1", "/image/digests/waiter': 'sha256:1' does not match pattern"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy': value must be one of"),
        ("imagePullSecrets={my-registry}", "/imagePullSecrets/0': got string, want object"),
        ("podMonitor=true", "/podMonitor': got boolean, want object"),
    ] {
        let refusal = template(names::OPERATOR_NAMESPACE, &[value]).unwrap_err();
        assert!(refusal.contains(part), "{value}: {refusal}");
    }
}

/// What is in a namespace that isn't the operator's own would no longer be gated, nor reached.
#[test]
fn any_namespace_of_its_own_will_do() {
    for namespace in ["default", "kube-system"] {
        let refusal = template(namespace, &[]).unwrap_err();
        assert!(refusal.contains("a namespace of its own"), "{refusal}");
        assert!(refusal.contains("--create-namespace"), "{refusal}");
    }
    for object in objects(&template("elsewhere", &["podMonitor.enabled=true"]).unwrap()) {
        let own = object["metadata"].get("namespace").into_iter();
        let subjects =
            object["subjects"].as_array().into_iter().flatten().map(|subject| &subject["namespace"]);
        for namespace in own.chain(subjects) {
            assert_eq!(namespace, "elsewhere", "{object}");
        }
    }
}

#[test]
fn helm_has_nothing_to_complain_about() {
    let home = tempfile::tempdir().unwrap();
    let mut lint = program("helm", home.path());
    let (_, folder) = release(&["registry.example/team", VERSION]).unwrap();
    let packed = folder.path().join(format!("migrations-operator-{VERSION}.tgz"));
    lint.args(["lint", "--strict", "--namespace", names::OPERATOR_NAMESPACE, "chart"]).arg(packed);
    output(&mut lint).unwrap();
}

/// Every image in the objects, the waiter's included.
fn images(objects: &[Value]) -> Vec<String> {
    let mut images = Vec::new();
    for object in objects.iter().filter(|object| object["kind"] == "Deployment") {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let variables = container["env"].as_array().unwrap().iter();
        let waiter = variables
            .filter(|variable| variable["name"] == "WAITER_IMAGE")
            .map(|variable| &variable["value"]);
        images.extend(
            [&container["image"]].into_iter().chain(waiter).map(|image| image.as_str().unwrap().to_owned()),
        );
    }
    images.sort();
    images
}

fn chart_of(folder: &Path, values: &[&str]) -> Vec<Value> {
    let chart = folder.join(format!("migrations-operator-{VERSION}.tgz"));
    objects(&template_of(&chart, names::OPERATOR_NAMESPACE, values).unwrap())
}

#[test]
fn a_release_names_its_images_by_owner_tag_and_digest() {
    let digest = |of: &str| format!("sha256:{}", of.repeat(64));
    let image = |name: &str| format!("registry.example/team/migrations-{name}");
    let [controller, waiter, webhook] = [("controller", "a"), ("waiter", "b"), ("webhook", "c")]
        .map(|(name, of)| (image(name), format!("{}@{}", image(name), digest(of)), digest(of)));
    let indexes = [&webhook.1, &controller.1, &waiter.1].map(String::as_str);
    let [owner, tag] = ["registry.example/team", "9.8.7"];

    let (install, folder) = release(&[owner, tag, indexes[0], indexes[1], indexes[2]]).unwrap();
    let expected = [&controller, &waiter, &webhook].map(|(name, _, digest)| format!("{name}:{tag}@{digest}"));
    assert_eq!(images(&objects(&install)), expected);
    assert_eq!(images(&chart_of(folder.path(), &[])), expected);
    let without_namespace = objects(&install).len() - 1;
    assert_eq!(chart_of(folder.path(), &[]).len(), without_namespace);
    for object in objects(&install).iter().chain(&chart_of(folder.path(), &[])) {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/version"], tag, "{object}");
    }
    // The digests are not of another tag.
    let edge = [&controller, &waiter, &webhook].map(|(name, ..)| format!("{name}:edge"));
    assert_eq!(images(&chart_of(folder.path(), &["image.tag=edge"])), edge);
    let comment = install.split("---\n").next().unwrap();
    assert!(comment.contains("go all Migrators"), "{comment}");

    let (install, folder) = release(&[owner, tag]).unwrap();
    let expected = [&controller, &waiter, &webhook].map(|(name, ..)| format!("{name}:{tag}"));
    assert_eq!(images(&objects(&install)), expected);
    assert_eq!(images(&chart_of(folder.path(), &[])), expected);

    let refusal = release(&[owner, tag, indexes[0], indexes[1], indexes[1]]).unwrap_err();
    assert!(refusal.contains("no digest of registry.example/team/migrations-waiter"), "{refusal}");
}

/// Whoever packs the same content gets the same bytes.
#[test]
fn the_packed_chart_does_not_tell_when_or_by_whom_it_was_packed() {
    let (_, folder) = release(&["registry.example/team", VERSION]).unwrap();
    let mut list = program("tar", folder.path());
    list.args(["--list", "--verbose", "--numeric-owner", "--utc", "--file"]);
    let files = output(list.arg(folder.path().join(format!("migrations-operator-{VERSION}.tgz")))).unwrap();
    let neutral = |file: &str| file.contains(" 0/0 ") && file.contains(" 1970-01-01 ");
    assert!(files.lines().count() > 10 && files.lines().all(neutral), "{files}");
}

/// As it is in the checkout, which `kubectl apply -k manifests` installs.
#[test]
fn the_checkout_installs_the_images_of_its_version() {
    let expected = ["controller", "waiter", "webhook"]
        .map(|name| format!("ghcr.io/coderanger/migrations-{name}:{VERSION}"));
    assert_eq!(images(&objects(&kustomize(&[]))), expected);
}
