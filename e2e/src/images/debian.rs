//! Root file systems for the application's images, from Debian packages: for machines where no registry answers.
//!
//! Packages are unpacked and not configured: no package manager, no services, none of the users that they would make.
//! What little of that a program needs, a script of `e2e/app/debian` does.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::cache::{self, Inputs};
use crate::progress::step;
use crate::{command, packages};

/// Its Python is the one that `requirements.txt` was pinned for.
const SUITE: &str = "trixie";
/// Never read on a cluster.
const LEFT_OUT: [&str; 6] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/i18n/*",
    "/usr/lib/*/gconv/*",
];

/// What goes into a root file system.
pub(super) struct Root<'a> {
    /// What it is for.
    pub(super) name: &'a str,
    /// Debian's names, without their dependencies.
    pub(super) packages: &'a str,
    /// Paths to leave out besides the usual ones.
    pub(super) left_out: &'a [&'a str],
    /// Finishes it; gets the root and `given`.
    pub(super) script: PathBuf,
}

impl Root<'_> {
    /// Names everything that it is made from, this recipe and what `given` is made from included.
    pub(super) fn inputs(&self, given: &Path) -> Result<Inputs> {
        let inputs = Inputs::default().text(include_str!("debian.rs")).text(ARCH).text(self.packages);
        inputs.text(&self.left_out.join(" ")).file(&self.script)?.file(given)
    }

    /// The tar of it, from the cache where it is there. `prepare` makes what the script gets.
    pub(super) fn tar(
        &self,
        inputs: Inputs,
        prepare: impl FnOnce(&Path) -> Result<PathBuf>,
    ) -> Result<PathBuf> {
        packages::ensure_installed(&[packages::MMDEBSTRAP, packages::KEYRING])?;
        let folder = cache::entry(self.name, inputs, |folder| {
            let work = tempfile::tempdir_in(folder)?;
            let given = prepare(work.path())?;
            step(format!("making a root file system for {}", self.name), || {
                command::run(&mut self.make(&given, &folder.join("root.tar")))
            })
        })?;
        Ok(folder.join("root.tar"))
    }

    fn make(&self, given: &Path, tar: &Path) -> Command {
        let mut make = Command::new("mmdebstrap");
        make.args(["--variant=extract", &format!("--include={}", self.packages)]);
        make.arg("--aptopt=APT::Install-Recommends \"false\"");
        for path in LEFT_OUT.iter().chain(self.left_out) {
            make.arg(format!("--dpkgopt=path-exclude={path}"));
        }
        make.arg(format!("--extract-hook=sh '{}' \"$1\" '{}'", self.script.display(), given.display()));
        make.arg(SUITE).arg(tar);
        make
    }
}

/// Installs Python packages for the Python of [`SUITE`] into a folder, whatever Python this machine has.
pub(super) fn python_packages(requirements: &Path, folder: &Path) -> Result<PathBuf> {
    let mut pip = packages::pip()?;
    let to = folder.join("packages");
    // Dependencies are pinned with everything else; pip would ask for those of the Python that it runs on.
    pip.args(["install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--implementation=cp", "--python-version=3.13"]);
    for tag in ["manylinux_2_28", "manylinux_2_17", "manylinux2014"] {
        pip.arg(format!("--platform={tag}_{ARCH}"));
    }
    step("downloading Python packages", || {
        command::run(pip.arg("--target").arg(&to).arg("--requirement").arg(requirements))
    })?;
    Ok(to)
}
