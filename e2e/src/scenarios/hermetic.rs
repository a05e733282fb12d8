//! No packet of the cluster leaves this machine: its addresses mean something else outside.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use crate::cluster::Cluster;
use crate::command;
use crate::environment::Environment;

/// Addresses of the Pod and Service ranges that nobody has.
const UNUSED: [&str; 2] = ["10.244.200.200", "10.96.200.200"];
const POD: &str = "hermetic";
/// Counts, after everything else on the node, what is on its way out to one of the addresses.
const WITNESS: &str = "table ip witness { chain leaving { type filter hook postrouting priority 300; \
                       oifname eth0 ip daddr { 10.244.200.200, 10.96.200.200 } counter; }; }\n";

/// Nothing tried to leave so far; a Pod that tries fails at once, and no packet of it gets out.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let cluster = environment.cluster();
    if !cluster.is_hermetic() {
        return Ok(Outcome::Skipped("published node images have no such rules".to_owned()));
    }
    let tried = nothing_so_far(cluster)
        .and_then(|()| witnessed(cluster))
        .and_then(|()| attempts(cluster))
        .and_then(|()| {
            let seen = seen_by_witness(cluster)?;
            ensure!(seen == 0, "{seen} packets got past the rules of the nodes");
            let stopped = cluster.escaped_packets()?;
            ensure!(stopped >= 2, "the Pod's attempts were not stopped by the rules: they counted {stopped}");
            Ok(Outcome::Passed)
        });
    clean_up(cluster)?;
    tried
}

fn nothing_so_far(cluster: &Cluster) -> Result<()> {
    let packets = cluster.escaped_packets()?;
    ensure!(
        packets == 0,
        "{packets} packets tried to leave this machine since the nodes started, and were stopped"
    );
    Ok(())
}

fn attempts(cluster: &Cluster) -> Result<()> {
    let mut image = kube_system(cluster);
    image.args([
        "get",
        "daemonset",
        "kube-proxy",
        "--output",
        "jsonpath={.spec.template.spec.containers[0].image}",
    ]);
    let image = command::output(&mut image)?;
    let mut start = cluster.kubectl();
    start.args(["run", POD, "--image", &image, "--image-pull-policy", "Never", "--restart", "Never"]);
    command::run(start.args(["--command", "--", "sleep", "600"]))?;
    command::run(cluster.kubectl().args(["wait", "--for=condition=Ready", "pod", POD, "--timeout=60s"]))?;
    for address in UNUSED {
        // `timeout` ends with 124 where the attempt hangs instead of failing.
        let script = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/80'; echo $?");
        let code = command::output(cluster.kubectl().args(["exec", POD, "--", "bash", "-c", &script]))?;
        ensure!(code == "1", "connecting to the unused address {address} did not fail at once (code {code})");
    }
    Ok(())
}

fn witnessed(cluster: &Cluster) -> Result<()> {
    on_every_node(cluster, |node| {
        let mut load = cluster.engine().docker();
        command::run_with_text(WITNESS, load.args(["exec", "--interactive", node, "nft", "--file", "-"]))
    })
}

fn seen_by_witness(cluster: &Cluster) -> Result<u64> {
    let mut seen = 0;
    on_every_node(cluster, |node| {
        let mut list = cluster.engine().docker();
        let listing =
            command::output(list.args(["exec", node, "nft", "--json", "list", "table", "ip", "witness"]))?;
        seen += crate::cluster::counted(&listing)?;
        Ok(())
    })?;
    Ok(seen)
}

fn clean_up(cluster: &Cluster) -> Result<()> {
    let mut delete = cluster.kubectl();
    command::run_to_end(delete.args(["delete", "pod", POD, "--ignore-not-found", "--grace-period=1"]))?;
    on_every_node(cluster, |node| {
        let mut forget = cluster.engine().docker();
        command::run_to_end(forget.args(["exec", node, "nft", "destroy", "table", "ip", "witness"]))?;
        // The attempts above are not to be held against what runs next.
        let mut reset = cluster.engine().docker();
        command::run_to_end(reset.args(["exec", node, "nft", "reset", "rules", "table", "inet", "hermetic"]))
    })
}

fn on_every_node(cluster: &Cluster, mut work: impl FnMut(&str) -> Result<()>) -> Result<()> {
    for node in cluster.nodes()? {
        work(&node).with_context(|| format!("on node {node}"))?;
    }
    Ok(())
}

fn kube_system(cluster: &Cluster) -> Command {
    let mut command = cluster.kubectl();
    command.args(["--namespace", "kube-system"]);
    command
}
