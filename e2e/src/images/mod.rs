//! The images that run on the cluster: the operator's own, and the application that the scenarios deploy. Made in the
//! engine, from nothing that only this machine has. Must not know of the cluster.

mod app;
pub(crate) mod architecture;
pub(crate) mod archive;
pub(crate) mod cross;
mod debian;
pub(crate) mod description;
pub(crate) mod operator;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::architecture::Architecture;
use crate::command;
use crate::engine::Engine;
use crate::progress::step;

/// Names what an image was made from, so that nothing is made twice.
const CONTENT: &str = "migrations-operator.content";
const REGISTRY_ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Makes every image, or takes the operator's from `archives`; returns the references to load into the cluster.
pub(crate) fn all(engine: &Engine, archives: Option<&Path>) -> Result<Vec<String>> {
    let built = archives
        .map_or_else(|| Architecture::own().and_then(operator::build), |folder| Ok(folder.to_owned()));
    let operator = built.and_then(|folder| operator::take(engine, &folder));
    let mut images = operator.context("the operator's images")?;
    images.extend(app::build(engine).context("the application's images")?);
    Ok(images)
}

/// Builds the operator's images; fails where one is larger than it may be, or doesn't say what crates it is made of.
pub(crate) fn check() -> Result<()> {
    operator::check(&operator::build(Architecture::own()?)?)
}

/// Whether the engine has `image`, made from `content`.
fn is_current(engine: &Engine, image: &str, content: &str) -> bool {
    let mut inspect = engine.docker();
    inspect.args([
        "image",
        "inspect",
        "--format",
        &format!("{{{{index .Config.Labels {CONTENT:?}}}}}"),
        image,
    ]);
    command::output(&mut inspect).is_ok_and(|found| found == content)
}

/// Makes an image of one layer from a tar, in place of the one that has the name now.
fn import(engine: &Engine, tar: &Path, changes: &[&str], content: &str, image: &str) -> Result<()> {
    let mut import = engine.docker();
    import.args(["import", "--change", &format!("LABEL {CONTENT}={content}")]);
    for change in changes {
        import.args(["--change", change]);
    }
    replace(engine, image, import.arg(tar).arg(image))
}

/// Runs `make`, which makes an image in place of the one that has the name now.
fn replace(engine: &Engine, image: &str, make: &mut Command) -> Result<()> {
    let id = || command::output(engine.docker().args(["image", "inspect", "--format", "{{.Id}}", image]));
    let replaced = id();
    command::run(make)?;
    if let Ok(replaced) = replaced
        && id().is_ok_and(|made| made != replaced)
    {
        // It has lost its name. Where something still uses it, it stays.
        let _ = command::run(engine.docker().args(["rmi", &replaced]));
    }
    Ok(())
}

/// Whether `image` can be pulled. The private engine is there for machines where none can, and gives builds no network.
fn registry_has(engine: &Engine, image: &str) -> bool {
    if engine.is_private() {
        return false;
    }
    let ask = || {
        let mut ask: Command = engine.docker();
        ask.args(["manifest", "inspect", image]);
        Ok(command::run_within(REGISTRY_ANSWERS_WITHIN, &mut ask).is_ok())
    };
    step("asking the registry for the application's base images", ask).unwrap_or(false)
}
