//! Kubernetes, etcd, kind, crane and helm as programs of this machine, built from the pinned Go modules of
//! `e2e/cluster`.
//!
//! The modules hold no code: their `tool` directives name the programs, their `go.sum` pins every byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::cache::{self, Inputs};
use crate::progress::step;
use crate::{command, paths};

/// What the integration tests start.
const TESTED: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

/// The programs of one of the modules, in one folder.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The control plane, the node's Kubernetes programs, kubectl and kind.
    pub(crate) fn control_plane() -> Result<Self> {
        let version = kubernetes_version()?;
        let (major, minor) = version
            .strip_prefix('v')
            .and_then(|version| version.split_once('.'))
            .and_then(|(major, rest)| Some((major, rest.split_once('.')?.0)))
            .with_context(|| format!("{version} isn't a Kubernetes version"))?;
        // kubeadm refuses to work without knowing its version.
        let flags = format!(
            "-s -w -X k8s.io/component-base/version.gitVersion={version} \
             -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor} \
             -X k8s.io/client-go/pkg/version.gitVersion={version}"
        );
        let built = build("controlplane", &["-ldflags", &flags], |folder| {
            // etcd's package is called `server`, and so is what Go makes of it.
            fs::rename(folder.join("server"), folder.join("etcd")).context("cannot name etcd")
        })?;
        Ok(built)
    }

    /// What a node has besides: containerd, network plugins, `CoreDNS`.
    pub(crate) fn node_tools() -> Result<Self> {
        build(
            "nodetools",
            &["-tags", "no_btrfs no_devmapper no_zfs no_aufs", "-ldflags", "-s -w"],
            |_| Ok(()),
        )
    }

    /// crane: the client of registries that publishes, and a registry for tests.
    pub(crate) fn registry() -> Result<Self> {
        build("registry", &["-ldflags", "-s -w"], |_| Ok(()))
    }

    /// kind and kubectl that are there already.
    pub(crate) fn given(folder: &Path) -> Result<Self> {
        for name in ["kind", "kubectl"] {
            ensure!(folder.join(name).is_file(), "--tools {}: there is no {name} in it", folder.display());
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder that they are in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs one of them.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.folder.join(name))
    }
}

/// Where the integration tests find a control plane: what `KUBEBUILDER_ASSETS` names, else our own.
pub(crate) fn test_assets() -> Result<PathBuf> {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    match given.filter(|folder| TESTED.iter().all(|name| folder.join(name).is_file())) {
        Some(folder) => Ok(folder),
        None => Ok(Binaries::control_plane()?.folder),
    }
}

/// helm, which the chart's tests run.
pub(crate) fn helm() -> Result<PathBuf> {
    Ok(build("helm", &["-ldflags", "-s -w"], |_| Ok(()))?.folder.join("helm"))
}

/// The pinned Kubernetes version, such as `v1.36.3`.
pub(crate) fn kubernetes_version() -> Result<String> {
    let pins = fs::read_to_string(paths::cluster("controlplane/go.mod")).context("cannot read the pins")?;
    let version = pins.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    let version = version.and_then(|rest| rest.split_whitespace().next());
    Ok(version.context("controlplane/go.mod names no k8s.io/kubernetes")?.to_owned())
}

/// The folder of a module that the control plane's pins name.
pub(crate) fn module_folder(module: &str) -> Result<PathBuf> {
    let mut list = go("controlplane");
    command::output(list.args(["list", "-m", "-f", "{{.Dir}}", module])).map(PathBuf::from)
}

/// Fails with what to install where Go is missing or too old for the pins.
pub(crate) fn check_go() -> Result<()> {
    let needed = "Go 1.26.8 or newer (https://go.dev/dl)";
    if !command::exists("go") {
        return Err(anyhow!("{needed}: not found"));
    }
    // containerd asks for the newest Go. Where Go may, it fetches that by itself.
    let version = command::output(go("nodetools").args(["list", "-m"]));
    version.map(drop).map_err(|error| anyhow!("{needed}: {error:#}"))
}

fn build(module: &str, flags: &[&str], finish: impl FnOnce(&Path) -> Result<()>) -> Result<Binaries> {
    let inputs = Inputs::default()
        .folder(&paths::cluster(module))?
        .text(&flags.join(" "))
        .text(std::env::consts::ARCH);
    let folder = cache::entry(module, inputs, |folder| {
        step(format!("building the programs of e2e/cluster/{module} (once; minutes)"), || {
            let mut target = folder.as_os_str().to_owned();
            target.push("/");
            let mut build = go(module);
            build
                .env("CGO_ENABLED", "0")
                .args(["build", "-trimpath", "-buildvcs=false"])
                .args(flags)
                .arg("-o")
                .arg(target)
                .arg("tool");
            command::run(&mut build)
        })?;
        finish(folder)
    })?;
    Ok(Binaries { folder })
}

fn go(module: &str) -> Command {
    let mut command = Command::new("go");
    command.current_dir(paths::cluster(module)).env("GOWORK", "off");
    command
}
