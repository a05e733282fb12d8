//! The shipped manifests, for tests that tie them to code.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// All objects that `kubectl apply -k manifests` applies, in order, without what kustomize adds.
pub fn manifests() -> Vec<Value> {
    let folder = folder();
    let kustomization = &documents(&folder.join("kustomization.yaml"))[0];
    let resources = kustomization["resources"].as_array().expect("a list of resources");
    resources.iter().flat_map(|file| documents(&folder.join(file.as_str().expect("a file name")))).collect()
}

/// The objects of a file in `manifests/samples`.
pub fn sample(file: &str) -> Vec<Value> {
    documents(&folder().join("samples").join(file))
}

/// The object of this kind and name.
pub fn manifest(kind: &str, name: &str) -> Value {
    let objects = manifests();
    let found =
        objects.into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name} in the manifests"))
}

/// The arguments of a Deployment's first container, after the program's name.
pub fn command_line(deployment: &str) -> Vec<String> {
    let deployment = manifest("Deployment", deployment);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let args = container["args"].as_array().into_iter().flatten();
    std::iter::once(&container["name"]).chain(args).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The value of a variable of a Deployment's first container.
pub fn variable(deployment: &str, name: &str) -> String {
    let deployment = manifest("Deployment", deployment);
    let variables = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let variable = variables.as_array().into_iter().flatten().find(|variable| variable["name"] == name);
    variable.and_then(|variable| variable["value"].as_str()).expect("such a variable").to_owned()
}

/// The number of a Deployment's port by its name.
pub fn port(deployment: &str, name: &str) -> u64 {
    let deployment = manifest("Deployment", deployment);
    let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
    let port = ports.as_array().into_iter().flatten().find(|port| port["name"] == name);
    port.and_then(|port| port["containerPort"].as_u64()).expect("such a port")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents.map(|document| Value::deserialize(document).expect("an object in YAML")).collect()
}
