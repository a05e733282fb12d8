//! The operator's images: one static program each, and nothing else in them.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::engine::Engine;
use crate::progress::step;
use crate::{command, packages, paths};

/// The operator has one version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A program with an image of its own.
struct Program {
    name: &'static str,
    profile: &'static str,
    about: &'static str,
}

const PROGRAMS: [Program; 3] = [
    Program { name: "migrations-controller", profile: "release", about: "Decides and runs migrations" },
    Program {
        name: "migrations-webhook",
        profile: "release",
        about: "Injects waiters into Pods and answers them",
    },
    Program {
        name: "migrations-waiter",
        profile: "waiter",
        about: "Waits in a Pod until its migrations are done",
    },
];

/// Builds the programs and their images; returns what the manifests call them.
pub(super) fn build(engine: &Engine) -> Result<Vec<String>> {
    let target = format!("{ARCH}-unknown-linux-musl");
    packages::ensure_installed(&[packages::GCC, packages::LIBC, packages::MUSL])?;
    if command::exists("rustup") {
        command::run(
            Command::new("rustup").args(["target", "add", &target]).current_dir(paths::workspace()),
        )?;
    }
    let compile = |profile: &str, packages: &[&str]| {
        step(format!("compiling {}", packages.join(" and ")), || {
            command::run(&mut cargo(&target, profile, packages))
        })
    };
    compile("release", &["migrations-controller", "migrations-webhook"])?;
    // By itself, so that what the other two need of shared dependencies doesn't end up in it.
    compile("waiter", &["migrations-waiter"])?;

    let folder = target_folder().join(&target);
    PROGRAMS.iter().map(|program| image(engine, program, &folder.join(program.profile))).collect()
}

fn cargo(target: &str, profile: &str, packages: &[&str]) -> Command {
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

fn image(engine: &Engine, program: &Program, folder: &Path) -> Result<String> {
    let Program { name, about, .. } = *program;
    let image = format!("ghcr.io/coderanger/{name}:{VERSION}");
    let binary = folder.join(name);
    let bytes = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let content = hexadecimal(&Sha256::digest(bytes));
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
        "--mode=0755",
        "--create",
        "--file",
    ]);
    command::run(pack.arg(&tar).arg("--directory").arg(folder).arg(name))?;
    let changes = [
        &format!(r#"ENTRYPOINT ["/{name}"]"#),
        "USER 65532:65532",
        &format!("LABEL org.opencontainers.image.title={name}"),
        &format!("LABEL org.opencontainers.image.description={about:?}"),
        &format!("LABEL org.opencontainers.image.version={VERSION}"),
        &format!("LABEL org.opencontainers.image.source={}", env!("CARGO_PKG_REPOSITORY")),
        &format!("LABEL org.opencontainers.image.licenses={}", env!("CARGO_PKG_LICENSE")),
    ];
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
