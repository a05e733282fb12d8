//! Programs for the architecture that this machine hasn't: compiled with zig's C compiler and linker, tried in an emulator.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::architecture::Architecture;
use super::archive::Archive;
use super::description::{Description, file_name};
use super::operator;
use crate::cache::{self, Inputs};
use crate::progress::{note, step};
use crate::{command, packages, paths};

/// Makes `cargo` build with zig.
pub(super) fn compile_with_zig(cargo: &mut Command) -> Result<()> {
    let zig = zig()?;
    let mut path = vec![zig.join("bin")];
    let others = cargo.get_envs().find_map(|(name, value)| value.filter(|_| name == "PATH"));
    path.extend(std::env::split_paths(others.unwrap_or_default()));
    let path = std::env::join_paths(path)?;
    cargo.arg("zigbuild").env("PATH", path).env("CARGO_ZIGBUILD_ZIG_PATH", zig.join("ziglang/zig"));
    Ok(())
}

/// zig, and the cargo command that uses it.
fn zig() -> Result<PathBuf> {
    let requirements = paths::workspace().join("e2e/cross/requirements.txt");
    let inputs = Inputs::default().file(&requirements)?.text(ARCH);
    cache::entry("zig", inputs, |folder| {
        let mut pip = packages::pip()?;
        pip.args(["install", "--quiet", "--no-deps", "--no-compile", "--require-hashes"]);
        pip.args(["--only-binary=:all:", "--target"]).arg(folder).arg("--requirement").arg(&requirements);
        step("downloading zig", || command::run(&mut pip))
    })
}

/// Builds the images for every architecture, and starts each program once.
pub(crate) fn build_all() -> Result<()> {
    for architecture in Architecture::ALL {
        let folder = operator::build(architecture)?;
        operator::check(&folder)?;
        for name in Description::read()?.programs.keys() {
            try_out(architecture, &folder, name)
                .with_context(|| format!("{name} for {}", architecture.name()))?;
        }
        note(format!("the images for {} are in {}", architecture.name(), folder.display()));
    }
    Ok(())
}

/// Starts the program of an archive with nothing to do.
fn try_out(architecture: Architecture, folder: &Path, name: &str) -> Result<()> {
    let archive = Archive::open(&operator::archive_in(folder, name))?;
    let program = archive.program(&file_name(name))?;
    let mut start = if architecture == Architecture::own()? {
        Command::new(program)
    } else {
        packages::ensure_installed(&[packages::QEMU])?;
        let mut emulator = Command::new(format!("qemu-{}-static", architecture.processor()));
        emulator.arg(program);
        emulator
    };
    let output = start.arg("--help").output().with_context(|| format!("cannot run {start:?}"))?;
    // A waiter says it on the other stream, and ends with another code than a Pod could start with.
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(said.contains("Usage: "), "it ended with {}, and said: {said}", output.status);
    Ok(())
}
