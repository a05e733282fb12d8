//! What can be said of the flake's files without Nix: their format, code that nothing uses, mistakes in scripts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{command, crates, packages, paths};

/// Fails where a file isn't tidy.
pub(super) fn check() -> Result<()> {
    let nix = ["flake.nix", "nix/publishing.nix", "nix/stand-in/flake.nix"];
    let nix = nix.map(|file| paths::workspace().join(file));
    command::run(crates::command(crates::NIXPKGS_FMT)?.arg("--check").args(&nix))?;
    command::run(crates::command(crates::DEADNIX)?.arg("--fail").args(&nix))?;
    packages::ensure_installed(&[packages::SHELLCHECK])?;
    // As Nix makes programs of them.
    command::run(Command::new("shellcheck").args(["--shell", "bash"]).args(scripts()?))
}

fn scripts() -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(paths::workspace().join("nix"))?.map(|entry| Ok(entry?.path()));
    let mut scripts = paths.collect::<Result<Vec<_>>>()?;
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    Ok(scripts)
}
