//! Makes one network of the assembled nodes: each gets its own Pod addresses and a route to the others'.
//!
//! The order matters: no Pod may start before kube-proxy runs (its packets for Services would leave the node) or before
//! its node knows its own addresses (two nodes would give out the same). All of it may be repeated.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cluster::Cluster;
use crate::{command, interrupt};

struct Node {
    name: String,
    pods: String,
    address: String,
}

/// Wires the nodes; afterwards they become ready by themselves.
pub(crate) fn wire(cluster: &Cluster) -> Result<()> {
    without_upstream_names(cluster)?;
    let mut proxy = cluster.kubectl();
    proxy.args(["--namespace", "kube-system", "rollout", "status", "daemonset/kube-proxy", "--timeout=120s"]);
    command::run(&mut proxy)?;

    let nodes = addressed_nodes(cluster)?;
    for node in &nodes {
        // Each Pod has a route of its own; what is for one that is gone has no way to go, least of all out.
        let mut script = format!(
            "sed 's#POD_CIDR#{0}#' /kind/pods.conflist >/etc/cni/net.d/.pods && \
             mv /etc/cni/net.d/.pods /etc/cni/net.d/10-pods.conflist && \
             ip route replace unreachable {0}",
            node.pods
        );
        for other in nodes.iter().filter(|other| other.name != node.name) {
            write!(script, " && ip route replace {} via {}", other.pods, other.address)?;
        }
        let mut exec = cluster.engine().docker();
        command::run(exec.args(["exec", &node.name, "sh", "-c", &script]))?;
    }
    Ok(())
}

/// Lets `CoreDNS` answer for the cluster alone: a name of the outside fails at once instead of asking the machine's
/// resolver.
pub(crate) fn without_upstream_names(cluster: &Cluster) -> Result<()> {
    let mut get = cluster.kubectl();
    get.args(["--namespace", "kube-system", "get", "configmap", "coredns", "--output", "json"]);
    let mut map: serde_json::Value = serde_json::from_str(&command::output(&mut get)?)?;
    let old = map["data"]["Corefile"].as_str().context("CoreDNS has no Corefile")?;
    let new = without_upstream(old);
    if new == old {
        return Ok(());
    }
    map["data"]["Corefile"] = new.into();
    command::run_with_text(&map.to_string(), cluster.kubectl().args(["replace", "--filename", "-"]))
}

fn addressed_nodes(cluster: &Cluster) -> Result<Vec<Node>> {
    for _ in 0..150 {
        let mut get = cluster.kubectl();
        get.args(["get", "nodes", "--output", "jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type==\"InternalIP\")].address}{\"\\n\"}{end}"]);
        let listing = command::output(&mut get)?;
        if let Some(nodes) = listing.lines().map(parse_node).collect::<Option<Vec<_>>>() {
            return Ok(nodes);
        }
        if interrupt::raised() {
            bail!("interrupted");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("a node has no Pod addresses: see `kubectl describe nodes`")
}

fn parse_node(line: &str) -> Option<Node> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, pods, address] => {
            Some(Node { name: name.to_owned(), pods: pods.to_owned(), address: address.to_owned() })
        }
        _ => None,
    }
}

/// The Corefile without `forward` (which asks others) and `loop` (which looks for a loop by asking them).
fn without_upstream(corefile: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in corefile.split_inclusive('\n') {
        let text = line.trim();
        if inside {
            inside = text != "}";
        } else if text.starts_with("forward ") {
            inside = text.ends_with('{');
        } else if text != "loop" {
            kept.push_str(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_others_leaves_the_corefile() {
        let corefile = ".:53 {\n    errors\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    loop\n    reload\n}\n";
        assert_eq!(without_upstream(corefile), ".:53 {\n    errors\n    reload\n}\n");
        assert_eq!(without_upstream(".:53 {\n    forward . 1.1.1.1\n}\n"), ".:53 {\n}\n");
    }

    #[test]
    fn a_node_without_pod_addresses_is_not_ready_to_be_wired() {
        assert!(parse_node("worker 172.18.0.2").is_none());
        assert!(parse_node("worker 10.244.1.0/24 172.18.0.2").is_some());
    }
}
