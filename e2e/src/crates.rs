//! Programs from the crates registry that the checks and the images need, each of one version, built once.

use std::env::consts::ARCH;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::cache::{self, Inputs};
use crate::command;
use crate::progress::step;

/// A program and its version.
pub(crate) type Crate = (&'static str, &'static str);

/// Writes into programs what crates they are made of.
pub(crate) const AUDITABLE: Crate = ("cargo-auditable", "0.7.7");
/// Reads that.
pub(crate) const AUDIT_INFO: Crate = ("rust-audit-info", "0.5.4");
/// Finds code in Nix files that nothing uses.
pub(crate) const DEADNIX: Crate = ("deadnix", "1.3.1");
/// Formats Nix files.
pub(crate) const NIXPKGS_FMT: Crate = ("nixpkgs-fmt", "1.3.0");

/// The folder with a program.
pub(crate) fn folder((name, version): Crate) -> Result<PathBuf> {
    let root = cache::entry(name, Inputs::default().text(version).text(ARCH), |folder| {
        let mut install = command::cargo();
        install.args(["install", "--quiet", "--locked", "--no-track", "--root"]).arg(folder);
        step(format!("building {name} {version} (once)"), || {
            command::run(install.arg(format!("{name}@{version}")))
        })
    })?;
    Ok(root.join("bin"))
}

/// Runs a program.
pub(crate) fn command(wanted: Crate) -> Result<Command> {
    Ok(Command::new(folder(wanted)?.join(wanted.0)))
}

/// `PATH` with the folders of programs before all others.
pub(crate) fn path(wanted: &[Crate]) -> Result<OsString> {
    let mut folders = wanted.iter().map(|each| folder(*each)).collect::<Result<Vec<_>>>()?;
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    Ok(std::env::join_paths(folders)?)
}
