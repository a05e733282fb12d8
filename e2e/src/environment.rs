//! Everything a scenario runs on, brought up and taken down in order: engine, programs, node image, cluster, the
//! operator's images and manifests.

use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::binaries::Binaries;
use crate::cli::Built;
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::node_image::{self, NodeImage};
use crate::progress::{note, step};
use crate::{cache, command, images, interrupt, paths, prerequisites};

const NAMESPACE: &str = "migrations-operator";

/// What to do with the environment at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Afterwards {
    /// Take it down, unless it was up before.
    Restore,
    /// Leave it up if all went well.
    KeepOnSuccess,
    /// Leave it up whatever happened.
    Keep,
}

/// A cluster with the operator on it.
#[derive(Debug)]
pub(crate) struct Environment {
    cluster: Cluster,
}

/// What takes long and needs no cluster: made in one go, in any order relative to other work.
#[derive(Debug)]
pub(crate) struct Prepared {
    engine: Engine,
    binaries: Binaries,
    node_image: NodeImage,
    /// Archives of the operator's images, where they need not be built.
    archives: Option<PathBuf>,
}

impl Prepared {
    /// Finds or makes the engine, the programs and the node image, but for what was built elsewhere.
    pub(crate) fn get(built: &Built) -> Result<Self> {
        let archives = built.images.clone();
        if let Some(folder) = &built.tools {
            let (engine, binaries) = (Engine::find_or_start()?, Binaries::given(folder)?);
            return Ok(Self { engine, binaries, node_image: NodeImage::of_kind(), archives });
        }
        // The Go build is the longest part: what else there is goes on beside it.
        let (binaries, beside) = thread::scope(|scope| {
            let binaries = scope.spawn(Binaries::control_plane);
            let beside = engine_and_image();
            if beside.is_err() {
                interrupt::raise();
            }
            let binaries =
                binaries.join().unwrap_or_else(|_| Err(anyhow!("the build of the programs panicked")));
            (binaries, beside)
        });
        let (engine, found) = beside?;
        let binaries = binaries?;
        let node_image = match found {
            Some(image) => image,
            None => NodeImage::assemble(&engine)?,
        };
        Ok(Self { engine, binaries, node_image, archives })
    }

    /// Takes the operator's images from `archives`, if no others were asked for.
    pub(crate) fn or_archives(self, archives: Option<PathBuf>) -> Self {
        Self { archives: self.archives.or(archives), ..self }
    }
}

/// What can be had without the programs.
fn engine_and_image() -> Result<(Engine, Option<NodeImage>)> {
    let engine = Engine::find_or_start()?;
    let found = NodeImage::find(&engine)?;
    if found.is_none() {
        node_image::debian_base()?;
    }
    Ok((engine, found))
}

impl Environment {
    /// Whether a cluster is up already.
    pub(crate) fn is_up() -> bool {
        Engine::running().is_some_and(|engine| Cluster::exists(&engine).unwrap_or(false))
    }

    /// Brings everything up, or up to date where it is up already.
    pub(crate) fn up(prepared: Prepared) -> Result<Self> {
        let Prepared { engine, binaries, node_image, archives } = prepared;
        let images = images::all(&engine, archives.as_deref()).context("cannot get the images")?;
        let environment = Self { cluster: Cluster::ensure(&engine, &binaries, &node_image)? };
        let installed = environment.install(&images);
        if installed.is_err() && !interrupt::raised() {
            environment.explain();
        }
        installed.map(|()| environment)
    }

    /// Takes everything down; what isn't there is fine.
    pub(crate) fn down() -> Result<()> {
        let _alone = cache::lock("run")?;
        Self::take_down()
    }

    fn take_down() -> Result<()> {
        let Some(engine) = Engine::running() else { return Ok(()) };
        Cluster::delete(&engine)?;
        engine.stop()
    }

    /// Does `work` with the machine to itself, and afterwards leaves it as `afterwards` says, also when `work` fails.
    pub(crate) fn around<T>(
        built: &Built,
        afterwards: Afterwards,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        prerequisites::check(built)?;
        let _alone = cache::lock("run")?;
        let was_up = Self::is_up();
        let outcome = work();
        let keep = match afterwards {
            Afterwards::Restore => false,
            Afterwards::KeepOnSuccess => outcome.is_ok(),
            Afterwards::Keep => true,
        };
        if was_up || keep {
            return outcome;
        }
        match (outcome, Self::take_down()) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(error)) => Err(error.context("cannot clean up; `cargo e2e down` tries again")),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(cleanup)) => {
                note(format!("cannot clean up ({cleanup:#}); `cargo e2e down` tries again"));
                Err(error)
            }
        }
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Writes down the state of the cluster and says where.
    pub(crate) fn explain(&self) {
        let Ok(folder) = paths::left_over("failure") else { return };
        self.cluster.describe_into(&folder);
        note(format!("the state of the cluster at that time is in {}", folder.display()));
    }

    /// Installs the operator as users do, or brings back what is missing of it, and waits until it runs.
    pub(crate) fn install_operator(&self) -> Result<()> {
        self.apply_manifests()?;
        self.wait_for_operator()
    }

    fn apply_manifests(&self) -> Result<()> {
        let mut apply = self.cluster.kubectl();
        apply.args(["apply", "--server-side", "--kustomize"]).arg(paths::workspace().join("manifests"));
        command::run(&mut apply)
    }

    fn install(&self, images: &[String]) -> Result<()> {
        step("waiting for the cluster to be ready", || self.cluster.make_ready())?;
        let loaded = self.cluster.loaded_images();
        let current = self.cluster.engine().image_ids(images)?;
        if loaded.as_ref() != Some(&current) {
            step("loading images into the cluster", || self.cluster.load(images))?;
        }
        step("applying the manifests", || self.apply_manifests())?;
        if loaded.is_some_and(|loaded| loaded != current) {
            // An image that changed has the same name as before.
            command::run(self.namespaced().args(["rollout", "restart", "deployment"]))?;
        }
        step("waiting for the operator", || self.wait_for_operator())?;
        self.cluster.remember_loaded(&current)
    }

    fn wait_for_operator(&self) -> Result<()> {
        let names = command::output(self.namespaced().args(["get", "deployments", "--output", "name"]))?;
        for name in names.lines() {
            command::run(self.namespaced().args(["rollout", "status", name, "--timeout=180s"]))?;
        }
        Ok(())
    }

    fn namespaced(&self) -> std::process::Command {
        let mut command = self.cluster.kubectl();
        command.args(["--namespace", NAMESPACE]);
        command
    }
}
