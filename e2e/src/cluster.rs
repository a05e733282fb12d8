//! The kind cluster: created, found again, fed with images, asked, deleted. How its nodes are wired is `wiring`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::binaries::Binaries;
use crate::engine::Engine;
use crate::node_image::NodeImage;
use crate::progress::{note, step};
use crate::{command, paths, wiring};

const NAME: &str = "migrations-e2e";
const LABEL: &str = "label=io.x-k8s.kind.cluster=migrations-e2e";
const KUBECONFIG: &str = "kubeconfig";
const LOADED: &str = "loaded-images";

/// A cluster that exists.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    engine: Engine,
    binaries: Binaries,
    kubeconfig: PathBuf,
    published: bool,
}

impl Cluster {
    /// Whether there is one, in whatever state.
    pub(crate) fn exists(engine: &Engine) -> Result<bool> {
        Ok(!containers(engine)?.is_empty())
    }

    /// The cluster, created where there is none, or none that answers and is made from this image. Its nodes may not be
    /// ready yet.
    pub(crate) fn ensure(engine: &Engine, binaries: &Binaries, image: &NodeImage) -> Result<Self> {
        let cluster = Self {
            engine: engine.clone(),
            binaries: binaries.clone(),
            kubeconfig: paths::left_over(KUBECONFIG)?,
            published: image.published,
        };
        if Self::exists(engine)? {
            if cluster.is_usable(image)? {
                note("using the cluster that is up already");
            } else {
                note("the cluster that is there doesn't answer or has older nodes: making a new one");
                Self::delete(engine)?;
            }
        }
        if !Self::exists(engine)? {
            step("creating the cluster", || cluster.create(image))?;
        }
        Ok(cluster)
    }

    /// Wires its nodes and waits until they and what they all need are ready.
    pub(crate) fn make_ready(&self) -> Result<()> {
        if self.published {
            wiring::without_upstream_names(self)?;
        } else {
            wiring::wire(self)?;
        }
        let wait = |args: &[&str]| command::run_within(Duration::from_secs(200), self.kubectl().args(args));
        wait(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=180s"])?;
        for workload in ["daemonset/kube-proxy", "deployment/coredns"] {
            wait(&["--namespace", "kube-system", "rollout", "status", workload, "--timeout=180s"])?;
        }
        Ok(())
    }

    /// Deletes the cluster; one that isn't there is fine.
    pub(crate) fn delete(engine: &Engine) -> Result<()> {
        let containers = containers(engine)?;
        if containers.is_empty() {
            return Ok(());
        }
        step("deleting the cluster", || {
            command::run_to_end(engine.docker().args(["rm", "--force", "--volumes"]).args(&containers))
        })?;
        for file in [KUBECONFIG, LOADED] {
            // Absent where `up` failed early.
            let _ = fs::remove_file(paths::left_over(file)?);
        }
        Ok(())
    }

    /// The credentials of its administrator.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl`, bound to this cluster.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = self.binaries.command("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// The engine that its nodes run in.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The names of its nodes, which are the names of their containers too.
    pub(crate) fn nodes(&self) -> Result<Vec<String>> {
        containers(&self.engine)
    }

    /// Puts images of the engine on every node.
    pub(crate) fn load(&self, images: &[String]) -> Result<()> {
        let mut load = self.kind();
        load.args(["load", "docker-image", "--name", NAME]).args(images);
        if images.is_empty() { Ok(()) } else { command::run(&mut load) }
    }

    /// What [`Self::remember_loaded`] was told last; nothing where this cluster was never told.
    pub(crate) fn loaded_images(&self) -> Option<String> {
        fs::read_to_string(self.kubeconfig.with_file_name(LOADED)).ok()
    }

    /// Remembers what the operator runs on, for as long as the cluster lives.
    pub(crate) fn remember_loaded(&self, images: &str) -> Result<()> {
        fs::write(self.kubeconfig.with_file_name(LOADED), images)
            .context("cannot remember which images are loaded")
    }

    /// Whether its nodes keep every packet on this machine. Published node images don't.
    pub(crate) fn is_hermetic(&self) -> bool {
        !self.published
    }

    /// How many packets tried to leave this machine since the nodes started. The nodes stopped every one of them, so
    /// anything but 0 tells of a Pod that wanted to go out, or of a node. Only for a cluster that [is hermetic](Self::is_hermetic).
    pub(crate) fn escaped_packets(&self) -> Result<u64> {
        let mut packets = 0;
        for node in self.nodes()? {
            let mut list = self.engine.docker();
            list.args(["exec", &node, "nft", "--json", "list", "table", "inet", "hermetic"]);
            packets += counted(&command::output(&mut list)?).with_context(|| format!("on node {node}"))?;
        }
        Ok(packets)
    }

    /// Writes the state of the cluster to files, for a look at what went wrong. Never fails.
    pub(crate) fn describe_into(&self, folder: &Path) {
        let questions: [(&str, &[&str]); 4] = [
            ("pods.txt", &["get", "pods", "--all-namespaces", "--output", "wide"]),
            ("events.txt", &["get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp"]),
            ("describe-pods.txt", &["describe", "pods", "--all-namespaces"]),
            ("nodes.txt", &["describe", "nodes"]),
        ];
        let _ = fs::create_dir_all(folder);
        for (file, question) in questions {
            let mut ask = self.kubectl();
            ask.args(["--request-timeout", "10s"]).args(question);
            let answer = command::output_to_end(&mut ask).unwrap_or_else(|error| format!("{error:#}"));
            let _ = fs::write(folder.join(file), answer);
        }
    }

    fn kind(&self) -> Command {
        let mut command = self.binaries.command("kind");
        self.engine.bind(&mut command);
        command.arg("--quiet");
        command
    }

    fn create(&self, image: &NodeImage) -> Result<()> {
        let text = fs::read_to_string(paths::cluster("kind.yaml"))?;
        let configuration =
            text.replace("disableDefaultCNI: true", &format!("disableDefaultCNI: {}", !image.published));
        let file = paths::left_over("kind.yaml")?;
        fs::write(&file, configuration)?;
        let mut create = self.kind();
        create.args(["create", "cluster", "--name", NAME]);
        if let Some(reference) = &image.reference {
            create.args(["--image", reference]);
        }
        command::run(create.arg("--config").arg(file).arg("--kubeconfig").arg(&self.kubeconfig))
    }

    fn is_usable(&self, image: &NodeImage) -> Result<bool> {
        let mut inspect = self.engine.docker();
        inspect.args(["inspect", "--format", "{{.Config.Image}} {{.State.Running}}"]).args(self.nodes()?);
        let is_wanted = |line: &str| {
            let node = line.strip_suffix(" true");
            node.is_some_and(|node| image.reference.as_deref().is_none_or(|reference| reference == node))
        };
        if !command::output(&mut inspect)?.lines().all(is_wanted) {
            return Ok(false);
        }
        // A cleaned `target` takes the credentials along.
        let mut export = self.kind();
        export.args(["export", "kubeconfig", "--name", NAME, "--kubeconfig"]).arg(&self.kubeconfig);
        let ready = || {
            command::succeeds(self.kubectl().args(["get", "--raw", "/readyz", "--request-timeout", "10s"]))
        };
        Ok(command::succeeds(&mut export) && ready())
    }
}

fn containers(engine: &Engine) -> Result<Vec<String>> {
    let mut list = engine.docker();
    list.args(["ps", "--all", "--filter", LABEL, "--format", "{{.Names}}"]);
    Ok(command::output_to_end(&mut list)?.lines().map(str::to_owned).collect())
}

/// The sum of the counters in what `nft --json list` prints.
pub(crate) fn counted(listing: &str) -> Result<u64> {
    let listing: serde_json::Value = serde_json::from_str(listing).context("nft printed no JSON")?;
    let rules = listing["nftables"].as_array().context("nft printed no rules")?;
    let counters: Vec<_> = rules
        .iter()
        .filter_map(|rule| rule["rule"]["expr"].as_array())
        .flatten()
        .filter_map(|part| part["counter"]["packets"].as_u64())
        .collect();
    anyhow::ensure!(!counters.is_empty(), "the table has no counters");
    Ok(counters.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_rules_are_summed() {
        let listing = r#"{"nftables": [{"metainfo": {}}, {"table": {"name": "hermetic"}},
            {"rule": {"expr": [{"match": {}}, {"counter": {"packets": 2, "bytes": 9}}, {"reject": {}}]}},
            {"rule": {"expr": [{"counter": {"packets": 3, "bytes": 9}}, {"drop": null}]}}]}"#;
        assert_eq!(counted(listing).unwrap(), 5);
    }

    #[test]
    fn a_table_without_counters_is_no_proof() {
        counted(r#"{"nftables": [{"table": {"name": "hermetic"}}]}"#).unwrap_err();
    }
}
