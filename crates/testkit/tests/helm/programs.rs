//! kubectl and helm, and what they make of the checkout.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use migrations_testkit::cluster::ControlPlane;
use serde::Deserialize as _;
use serde_json::Value;

/// The checkout.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A program in the checkout that finds kubectl and helm, and keeps what it remembers in `home`.
pub(crate) fn program(name: &str, home: &Path) -> Command {
    let helm = std::env::var_os("HELM").map(PathBuf::from);
    let helm = helm.unwrap_or_else(|| panic!("run `cargo verify`, or set HELM to the program"));
    let kubectl = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).unwrap();
    let inherited = std::env::var_os("PATH").unwrap();
    let path =
        [kubectl, helm.parent().unwrap().to_owned()].into_iter().chain(std::env::split_paths(&inherited));
    let mut command = Command::new(name);
    command.current_dir(workspace()).env("PATH", std::env::join_paths(path).unwrap()).env("HOME", home);
    for place in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{place}_HOME"), home.join("helm"));
    }
    command
}

/// A program that talks to the control plane.
pub(crate) fn program_at(plane: &ControlPlane, name: &str) -> Command {
    let mut command = program(name, plane.kubeconfig().parent().unwrap());
    command.env("KUBECONFIG", plane.kubeconfig());
    command
}

/// What the program says on its standard output, or how it complains.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    output_of(command, "")
}

/// The same, with this as its standard input.
pub(crate) fn output_of(command: &mut Command, input: &str) -> Result<String, String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Beside the reading of what it says; one that reads nothing has ended for a reason of its own.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let [said, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(said) } else { Err(said + &complained) }
}

/// The objects of a stream of YAML.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    objects.filter(|object| !object.is_null()).collect()
}

/// What kustomize makes of the manifests with these components, as YAML.
pub(crate) fn kustomize(components: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(workspace().join("manifests"), folder.path().join("manifests")).unwrap();
    let components: Vec<_> = components.iter().map(|name| format!("manifests/{name}")).collect();
    let kustomization = serde_json::json!({ "resources": ["manifests"], "components": components });
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    output(program("kubectl", folder.path()).arg("kustomize").arg(folder.path())).unwrap()
}

/// What helm makes of the checkout's chart with these values, as YAML, or how it complains.
pub(crate) fn template(namespace: &str, values: &[&str]) -> Result<String, String> {
    template_of(Path::new("chart"), namespace, values)
}

/// What helm makes of a chart for the oldest Kubernetes that is supported.
pub(crate) fn template_of(chart: &Path, namespace: &str, values: &[&str]) -> Result<String, String> {
    let home = tempfile::tempdir().unwrap();
    let mut helm = program("helm", home.path());
    helm.args(["template", "migrations"]).arg(chart).args([
        "--namespace",
        namespace,
        "--kube-version",
        "1.31.0",
    ]);
    output(helm.args(values.iter().flat_map(|value| ["--set", value])))
}

/// What the script makes for a release: `install.yaml`, and the folder that it is in, with the packed chart.
pub(crate) fn release(arguments: &[&str]) -> Result<(String, tempfile::TempDir), String> {
    let folder = tempfile::tempdir().unwrap();
    let mut script = program("bash", folder.path());
    script.args(["-euo", "pipefail", "nix/render.sh"]).arg(folder.path());
    output(script.args(arguments))?;
    Ok((fs::read_to_string(folder.path().join("install.yaml")).unwrap(), folder))
}
