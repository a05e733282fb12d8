//! Runs a script of `nix/`, or a program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// How it ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The lines of its stdout, after a success.
    pub(crate) fn lines(self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout.lines().map(str::to_owned).collect()
    }

    /// What its one error says, after a failure.
    pub(crate) fn error(self) -> String {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        errors[0].to_owned()
    }
}

/// The checkout.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A script of the project, in the checkout.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(workspace().join("nix").join(name).with_extension("sh")).current_dir(workspace());
    command
}

/// Runs it to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Programs that stand for others while this lives: shell scripts, by name.
pub(crate) fn stand_ins(command: &mut Command, programs: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, script) in programs {
        let file = folder.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    folder
}
