//! A Pod whose traffic a mesh redirects before its first init container starts waits and is released all the same.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment, pod};
use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::{command, paths};

const IMAGE: &str = "migrations-app:v1";
const NAMESPACE: &str = "e2e-mesh";

/// Puts the plugin of a mesh behind those that the node has. What comes first by name is used.
const INSTALL: &str = r#"
cat >/opt/cni/bin/mesh-redirect && chmod 755 /opt/cni/bin/mesh-redirect
cd /etc/cni/net.d && set -- *.conflist
jq --arg namespace "$NAMESPACE" '.plugins += [{type: "mesh-redirect", namespace: $namespace,
  capabilities: {"io.kubernetes.cri.pod-annotations": true}}]' "$1" >.mesh && mv .mesh 00-mesh.conflist
"#;

/// Ends with 0 where the connection is refused, with 1 where there is one.
const REFUSED: &str = "import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
except ConnectionRefusedError:
    sys.exit(0)
sys.exit(1)";

/// No proxy runs; only the waiter's port gets past the redirection.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "mesh")?;
    let cluster = environment.cluster();
    let tried = install(cluster).and_then(|()| released(&playground, &question_address(cluster)?));
    remove(cluster)?;
    tried?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

fn released(playground: &Playground<'_>, webhook: &str) -> Result<()> {
    until_redirected(playground, webhook)?;
    playground.gate(UNTIL_LET_GO)?;
    let mut web = deployment("web", "shop", IMAGE, 1);
    web["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] = "true".into();
    playground.apply(&web)?;
    playground.let_go()?;
    playground.rolled_out("web")?;

    let refused = |host: &str, port: &str| {
        playground.run(&["exec", "deployment/web", "--", "python3", "-c", REFUSED, host, port])
    };
    refused("kubernetes.default", "443").context("the Pod that was released is not in the mesh")?;
    ensure!(refused(webhook, "9444").is_err(), "the port of questions is redirected");
    Ok(())
}

/// Waits until new Pods are redirected: the node's runtime reads its files a moment after they are there. They are Pods
/// that don't wait, so that nobody leaves the port of questions out for them.
fn until_redirected(playground: &Playground<'_>, webhook: &str) -> Result<()> {
    for attempt in 0..20 {
        let name = format!("probe-{attempt}");
        playground.apply(&probe(&name, webhook))?;
        playground.wait(&["pod", &name, "--for=jsonpath={.status.containerStatuses[0].state.terminated}"])?;
        let code = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
        if playground.ask(&["get", "pod", &name, "--output", code])? == "0" {
            return Ok(());
        }
    }
    bail!("the nodes don't use the plugin of the mesh")
}

fn probe(name: &str, webhook: &str) -> Value {
    let mut pod = pod(name, "probe", IMAGE);
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["containers"][0]["command"] = json!(["python3", "-c", REFUSED, webhook, "9444"]);
    pod
}

fn question_address(cluster: &Cluster) -> Result<String> {
    let mut get = cluster.kubectl();
    get.args(["--namespace", "migrations-operator", "get", "service", "migrations-webhook"]);
    command::output(get.args(["--output", "jsonpath={.spec.clusterIP}"]))
}

fn install(cluster: &Cluster) -> Result<()> {
    let plugin = fs::read_to_string(paths::cluster("mesh-redirect")).context("the plugin of the mesh")?;
    for node in cluster.nodes()? {
        let mut exec = cluster.engine().docker();
        exec.args(["exec", "--interactive", "--env", &format!("NAMESPACE={NAMESPACE}"), &node]);
        command::run_with_text(&plugin, exec.args(["sh", "-euc", INSTALL]))?;
    }
    Ok(())
}

fn remove(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes()? {
        let mut exec = cluster.engine().docker();
        // Also when someone asks to stop: the next scenario has the same nodes. Running Pods need the program to end.
        command::run_to_end(exec.args(["exec", &node, "rm", "-f", "/etc/cni/net.d/00-mesh.conflist"]))?;
    }
    Ok(())
}
