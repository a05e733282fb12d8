//! A Nix that works on this machine, whatever machine that is, and what it is asked.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache::{self, Inputs};
use crate::progress::step;
use crate::{command, packages, paths};

/// Its Nix is 2.26.
const SUITE: &str = "trixie";

/// Builders that see the machine's own cargo, and nothing that needs a network or a daemon.
const CONFIGURATION: &str = "experimental-features = nix-command flakes\n\
                             build-users-group =\n\
                             sandbox = false\n\
                             substituters =\n\
                             flake-registry =\n";

/// A Nix that works.
pub(super) struct Nix {
    program: PathBuf,
}

impl Nix {
    /// The machine's own, else one of Debian's packages.
    pub(super) fn find_or_fetch() -> Result<Self> {
        if command::exists("nix") {
            return Ok(Self { program: "nix".into() });
        }
        packages::ensure_installed(&[packages::MMDEBSTRAP, packages::KEYRING, packages::PATCHELF])?;
        let inputs = || Inputs::default().text(include_str!("nix.rs")).text(ARCH);
        let root = cache::entry("nix-root", inputs(), |folder| {
            let mut unpack = Command::new("mmdebstrap");
            unpack.args(["--variant=extract", "--include=nix-bin", SUITE]).arg(folder.join("root"));
            step("unpacking Nix from Debian packages", || command::run(&mut unpack))
        })?;
        // Another entry, since it holds the path of the first.
        let folder = cache::entry("nix", inputs(), |folder| patch(&root.join("root"), &folder.join("nix")))?;
        Ok(Self { program: folder.join("nix") })
    }

    /// Fails where the lock file doesn't fit the flake: then it would have to be made anew, from the network.
    pub(super) fn check_lock(&self) -> Result<()> {
        command::run(self.nix().args(["flake", "metadata", "--no-update-lock-file"]).arg(paths::workspace()))
    }

    /// Fails where the flake doesn't evaluate for every system.
    pub(super) fn evaluate(&self) -> Result<()> {
        let mut check = self.with_stand_in(&["flake", "check"]);
        command::run(check.args(["--no-build", "--all-systems"]).arg(paths::workspace()))
    }

    /// Nix at one of its tasks, with the stand-in for nixpkgs.
    pub(super) fn with_stand_in(&self, task: &[&str]) -> Command {
        let stand_in = format!("path:{}", paths::workspace().join("nix/stand-in").display());
        let mut nix = self.nix();
        nix.args(task).args(["--override-input", "nixpkgs", &stand_in, "--no-write-lock-file", "--impure"]);
        nix
    }

    fn nix(&self) -> Command {
        let mut nix = Command::new(&self.program);
        nix.env("NIX_CONFIG", CONFIGURATION);
        nix
    }
}

/// Makes Debian's Nix a program of this machine, with the libraries it was made for.
fn patch(root: &Path, nix: &Path) -> Result<()> {
    let libraries = root.join(format!("usr/lib/{ARCH}-linux-gnu"));
    let loader = std::fs::read_dir(&libraries)
        .context("cannot look into Debian's libraries")?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")))
        .context("Debian's loader is missing")?;
    std::fs::copy(root.join("usr/bin/nix"), nix).context("cannot copy Nix")?;
    let mut patch = Command::new("patchelf");
    patch.arg("--set-interpreter").arg(loader);
    patch.args(["--force-rpath", "--set-rpath"]).arg(libraries);
    command::run(patch.arg(nix))
}
