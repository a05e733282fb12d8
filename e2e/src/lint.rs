//! Programs from Python's registry that look at dependencies and workflows.

use std::env::consts::ARCH;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::cache::{self, Inputs};
use crate::progress::step;
use crate::{command, paths};

/// The linters.
pub(crate) struct Linters {
    folder: PathBuf,
}

impl Linters {
    /// Fails where they can't be had: then nothing is known of what they would say.
    pub(crate) fn find_or_fetch() -> Result<Self> {
        ensure!(ARCH == "x86_64", "Python's registry has not all of them for {ARCH}; nix flake check has");
        let requirements = paths::workspace().join("e2e/lint/requirements.txt");
        // Some of it is compiled for one version of Python.
        let version = command::output(Command::new("python3").arg("--version"))?;
        let folder = cache::entry("lint", Inputs::default().file(&requirements)?.text(&version), |folder| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]);
            pip.args(["--no-deps", "--require-hashes", "--only-binary=:all:", "--target"]).arg(folder);
            step("downloading linters", || command::run(pip.arg("--requirement").arg(&requirements)))
        })?;
        Ok(Self { folder })
    }

    /// Has `command` find them.
    pub(crate) fn given<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        let path = command::path_with(&self.folder.join("bin"))?;
        Ok(command.env("PATH", path).env("PYTHONPATH", &self.folder))
    }

    /// Fails with what they say of the workflows.
    pub(crate) fn check_workflows(&self) -> Result<()> {
        let mut lint = Command::new("bash");
        lint.arg("nix/lint-workflows.sh").current_dir(paths::workspace());
        command::run(self.given(&mut lint)?)
    }
}
