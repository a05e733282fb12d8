//! The operator's images: one static program each, and nothing else in them.

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::progress::step;
use crate::{command, packages, paths};

/// The operator has one version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The images as Nix makes them too: what they are called and what is said of them.
const DESCRIPTION: &str = include_str!("../../../nix/images.json");

/// What the images have in common.
#[derive(Deserialize)]
struct Description {
    registry: String,
    user: String,
    programs: BTreeMap<String, Program>,
}

/// A program with an image of its own.
#[derive(Deserialize)]
struct Program {
    profile: String,
    description: String,
}

impl Description {
    fn read() -> Result<Self> {
        serde_json::from_str(DESCRIPTION).context("nix/images.json")
    }

    /// What the manifests call the image of a program.
    fn reference(&self, name: &str) -> String {
        format!("{}/migrations-{name}:{VERSION}", self.registry)
    }

    /// The configuration of a program's image, as changes to an empty one.
    fn changes(&self, name: &str, program: &Program) -> Vec<String> {
        let labels = [
            ("title", format!("migrations-{name}")),
            ("description", program.description.clone()),
            ("version", VERSION.to_owned()),
            ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
            ("source", env!("CARGO_PKG_REPOSITORY").to_owned()),
            ("revision", "unknown".to_owned()),
        ];
        let label = |(key, value): &(&str, String)| format!("LABEL org.opencontainers.image.{key}={value:?}");
        let entrypoint = format!(r#"ENTRYPOINT ["/migrations-{name}"]"#);
        [entrypoint, format!("USER {}", self.user)].into_iter().chain(labels.iter().map(label)).collect()
    }
}

/// Takes the images from archives named after the programs; returns what the manifests call them.
pub(super) fn take(engine: &Engine, folder: &Path) -> Result<Vec<String>> {
    let description = Description::read()?;
    let images: Vec<_> = description.programs.keys().map(|name| description.reference(name)).collect();
    for (name, image) in description.programs.keys().zip(&images) {
        let archive = folder.join(format!("{name}.tar"));
        ensure!(archive.is_file(), "--images {}: there is no {name}.tar in it", folder.display());
        command::run(engine.docker().args(["load", "--quiet", "--input"]).arg(&archive))?;
        ensure!(
            engine.has_image(image),
            "{} doesn't hold {image}, which the manifests ask for",
            archive.display()
        );
    }
    Ok(images)
}

/// Builds the programs and their images; returns what the manifests call them.
pub(super) fn build(engine: &Engine) -> Result<Vec<String>> {
    let target = format!("{ARCH}-unknown-linux-musl");
    packages::ensure_installed(&[packages::GCC, packages::LIBC, packages::MUSL])?;
    if command::exists("rustup") {
        command::run(
            Command::new("rustup").args(["target", "add", &target]).current_dir(paths::workspace()),
        )?;
    }
    let description = Description::read()?;
    // Profile by profile, so that what the programs of one need of shared dependencies doesn't end up in another's.
    let profiles: BTreeSet<_> = description.programs.values().map(|program| &program.profile).collect();
    for profile in profiles {
        let of_profile = description.programs.iter().filter(|(_, program)| program.profile == *profile);
        let packages: Vec<_> = of_profile.map(|(name, _)| format!("migrations-{name}")).collect();
        step(format!("compiling {}", packages.join(" and ")), || {
            command::run(&mut cargo(&target, profile, &packages))
        })?;
    }
    let folder = target_folder().join(&target);
    let image = |(name, program): (&String, &Program)| {
        image(engine, &description, name, program, &folder.join(&program.profile))
    };
    description.programs.iter().map(image).collect()
}

fn cargo(target: &str, profile: &str, packages: &[String]) -> Command {
    let mut cargo = command::cargo();
    cargo.args(["build", "--profile", profile, "--target", target, "--target-dir"]).arg(target_folder());
    for package in packages {
        cargo.args(["--package", package]);
    }
    // Some dependencies have C in them.
    cargo.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    cargo
}

fn target_folder() -> PathBuf {
    paths::workspace().join("target")
}

fn image(
    engine: &Engine,
    description: &Description,
    name: &str,
    program: &Program,
    folder: &Path,
) -> Result<String> {
    let (image, changes) = (description.reference(name), description.changes(name, program));
    let file = format!("migrations-{name}");
    let binary = folder.join(&file);
    let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let content = hexadecimal(&Sha256::new_with_prefix(bytes).chain_update(changes.concat()).finalize());
    if super::is_current(engine, &image, &content) {
        return Ok(image);
    }
    let work = tempfile::tempdir()?;
    let tar = work.path().join("image.tar");
    // The same program gives the same image, whenever and by whomever it is made.
    let mut pack = Command::new("tar");
    pack.args([
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--mode=0555",
        "--create",
        "--file",
    ]);
    command::run(pack.arg(&tar).arg("--directory").arg(folder).arg(&file))?;
    let changes: Vec<_> = changes.iter().map(String::as_str).collect();
    super::import(engine, &tar, &changes, &content, &image)?;
    Ok(image)
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_everyone_writes_them() {
        assert!(hexadecimal(&Sha256::digest("")).starts_with("e3b0c44298fc1c14"));
    }
}
