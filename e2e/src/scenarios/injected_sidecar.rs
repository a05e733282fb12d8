//! A sidecar that another webhook puts into runs, and that never ends: the migration counts when its own container
//! ends, and the next one isn't held up.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Outcome;
use super::playground::{Playground, deployment};
use crate::command;
use crate::environment::Environment;

const V1: &str = "migrations-app:v1";
const V2: &str = "migrations-app:v2";
/// The name of the policy that plays the other webhook.
const POLICY: &str = "e2e-injected-sidecar";

/// Two migrations, each with such a sidecar.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "injected-sidecar")?;
    forget_policy(environment)?;
    let tried = migrations(&playground);
    forget_policy(environment)?;
    tried?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn migrations(playground: &Playground<'_>) -> Result<()> {
    install_policy(playground)?;
    playground.gate("echo migrated")?;
    playground.apply(&deployment("web", "shop", V1, 1))?;
    playground.rolled_out("web")?;
    playground.run(&["set", "image", "deployment/web", &format!("app={V2}")])?;
    playground.rolled_out("web")?;
    playground.settled()?;

    let history = playground.history()?;
    let told: Vec<_> =
        history.iter().rev().map(|run| (run["image"].as_str(), run["result"].as_str())).collect();
    let expected = [V1, V2].map(|image| (Some(image), Some("Succeeded")));
    ensure!(told == expected, "the Migrator tells of these runs: {told:?}");

    // What the operator ends so is no failure of the migration: its container's exit code stays as it was.
    for pod in playground.run_pods()? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        playground.wait(&["pod", name, "--for=jsonpath={.status.reason}=DeadlineExceeded"])?;
        let output = playground.ask(&["logs", name, "--container", "migrations"])?;
        ensure!(output.trim() == "migrated", "the log of {name} is lost: {output:?}");
    }
    Ok(())
}

/// Puts the sidecar into every Pod of a run in the namespace.
fn install_policy(playground: &Playground<'_>) -> Result<()> {
    let sidecar = format!(
        r#"[JSONPatch{{ op: "add", path: "/spec/containers/-", value: Object.spec.containers{{
            name: "chatty", image: "{V1}", command: ["sh", "-c", "exec sleep infinity"],
            securityContext: Object.spec.containers.securityContext{{
                allowPrivilegeEscalation: false,
                capabilities: Object.spec.containers.securityContext.capabilities{{ drop: ["ALL"] }}
            }}
        }} }}]"#
    );
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": playground.namespace() } },
            "objectSelector": { "matchExpressions": [{ "key": "migrations", "operator": "Exists" }] },
            "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
            }],
        },
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": sidecar } }],
    });
    for (kind, spec) in [
        ("MutatingAdmissionPolicy", spec),
        ("MutatingAdmissionPolicyBinding", json!({ "policyName": POLICY })),
    ] {
        playground.apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": POLICY }, "spec": spec,
        }))?;
    }
    until_followed(playground)
}

/// The API server takes up a policy a moment after it is written, without a word.
fn until_followed(playground: &Playground<'_>) -> Result<()> {
    for _ in 0..300 {
        let probe = playground.ask(&[
            "run",
            "probe",
            "--image",
            V1,
            "--labels",
            "migrations=probe",
            "--restart=Never",
            "--dry-run=server",
            "--output",
            "jsonpath={.spec.containers[*].name}",
            "--overrides",
            r#"{"spec": {"securityContext": {"runAsNonRoot": true, "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "probe",
                "image": "migrations-app:v1", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}}}]}}"#,
        ])?;
        if probe.contains("chatty") {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    anyhow::bail!("the API server never follows the policy {POLICY}")
}

fn forget_policy(environment: &Environment) -> Result<()> {
    let mut delete = environment.cluster().kubectl();
    let kinds = "mutatingadmissionpolicybindings,mutatingadmissionpolicies";
    command::run_to_end(delete.args(["delete", kinds, POLICY, "--ignore-not-found"]))
}
