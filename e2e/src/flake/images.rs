//! The flake's images beside those that the harness packs: one description, two packers, and two builds of each program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::nix::Nix;
use crate::images::architecture::Architecture;
use crate::images::archive::Archive;
use crate::images::description::Description;
use crate::images::operator;
use crate::progress::step;
use crate::{command, crates, paths};

/// Fails where the images differ, or come out different when they are packed once more. Returns the folder of the flake's.
pub(super) fn check(nix: &Nix) -> Result<PathBuf> {
    let packed = operator::build(Architecture::own()?)?;
    let target = seeded_target()?;
    let built = step("building the images through the flake", || {
        build(nix, &target, "images", &["--print-out-paths"]).map(PathBuf::from)
    })?;
    for name in Description::read()?.programs.keys() {
        let [packed, built] =
            [&packed, &built].map(|folder| Archive::open(&operator::archive_in(folder, name)));
        compare(name, &packed?, &built?).with_context(|| format!("the images of {name}"))?;
        // Fails where other bytes come out than before.
        build(nix, &target, &format!("{name}-image"), &["--rebuild"])?;
    }
    Ok(built)
}

/// Fails where two images aren't started alike, don't say the same, or hold another program.
fn compare(name: &str, packed: &Archive, built: &Archive) -> Result<()> {
    let (here, there) = (packed.content()?, built.content()?);
    ensure!(here == there, "cargo's is {here:#?}, the flake's {there:#?}");
    let (here, there) = (packed.digests()?, built.digests()?);
    ensure!(
        here == there,
        "cargo's has layers {here:?}, the flake's {there:?}: the same source gave two programs"
    );
    println!("{name}: {}", here.join(" "));
    Ok(())
}

/// Builds one of the flake's packages; returns what Nix prints.
fn build(nix: &Nix, target: &Path, name: &str, options: &[&str]) -> Result<String> {
    let mut build = nix.with_stand_in(&["build", "--no-link"]);
    build.args(options).arg(format!("{}#{name}", paths::workspace().display()));
    // The stand-in's builders see these.
    build.env("STAND_IN_TARGET", target).env("PATH", crates::path(&[crates::AUDITABLE])?);
    command::output(&mut build)
}

/// Where the stand-in compiles: with what cargo has compiled of dependencies already, but nothing of the project's own.
fn seeded_target() -> Result<PathBuf> {
    let target = operator::compiled().join("flake");
    match fs::remove_dir_all(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", target.display()));
        }
        _ => fs::create_dir_all(&target)?,
    }
    let triple = Architecture::own()?.target();
    let profiles: BTreeSet<_> =
        Description::read()?.programs.into_values().map(|program| program.profile).collect();
    for folder in profiles.into_iter().flat_map(|profile| [format!("{triple}/{profile}"), profile]) {
        let to = target.join(&folder);
        fs::create_dir_all(&to)?;
        for part in ["build", "deps", ".fingerprint"] {
            // Links: cargo replaces what it has made of dependencies, and never writes into it.
            let mut copy = Command::new("cp");
            copy.args(["--recursive", "--link"]).arg(operator::compiled().join(&folder).join(part));
            command::run(copy.arg(to.join(part)))?;
        }
        // The project's own would be rewritten in place.
        let mut own = Command::new("find");
        own.arg(&to).args(["-mindepth", "2", "-maxdepth", "2"]);
        own.args(["(", "-name", "*migrations[-_]*", ")", "-exec", "rm", "-r", "--", "{}", "+"]);
        command::run(&mut own)?;
    }
    Ok(target)
}
