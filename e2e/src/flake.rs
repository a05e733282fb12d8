//! The flake, checked where nixpkgs can't be had: with a Nix of its own where there is none, and the stand-in
//! of `nix/stand-in` for nixpkgs.

mod images;
mod lint;
mod nix;

use std::path::PathBuf;

use anyhow::Result;

use self::nix::Nix;
use crate::{command, packages};

/// Whether there is a Nix, or one can be put to work.
pub(crate) fn is_checkable() -> bool {
    command::exists("nix") || packages::are_installable()
}

/// Fails where the flake doesn't evaluate for every system, its lock file doesn't fit it, or its files aren't tidy.
pub(crate) fn check() -> Result<()> {
    lint::check()?;
    let nix = Nix::find_or_fetch()?;
    nix.check_lock()?;
    nix.evaluate()
}

/// Fails where the flake's images aren't, to the last byte of their programs, those that cargo's programs make. Returns the
/// folder of their archives.
pub(crate) fn check_images() -> Result<PathBuf> {
    images::check(&Nix::find_or_fetch()?)
}
