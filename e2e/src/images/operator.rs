//! The operator's images: one static program each, and nothing else in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::architecture::Architecture;
use super::archive::{self, Archive};
use super::cross;
use super::description::{Description, file_name};
use crate::engine::Engine;
use crate::progress::step;
use crate::{command, crates, packages, paths};

/// Takes the images from archives named after the programs; returns what the manifests call them.
pub(super) fn take(engine: &Engine, folder: &Path) -> Result<Vec<String>> {
    let description = Description::read()?;
    let mut images = Vec::new();
    for name in description.programs.keys() {
        let (archive, image) = (archive_in(folder, name), description.reference(name));
        ensure!(archive.is_file(), "--images {}: there is no {name}.tar in it", folder.display());
        let mut load = engine.docker();
        load.args(["load", "--quiet", "--input"]).arg(&archive);
        super::replace(engine, &image, &mut load)?;
        ensure!(
            engine.has_image(&image),
            "{} doesn't hold {image}, which the manifests ask for",
            archive.display()
        );
        images.push(image);
    }
    Ok(images)
}

/// Builds the programs and packs each as an archive; returns the folder that these are in.
pub(crate) fn build(architecture: Architecture) -> Result<PathBuf> {
    let description = Description::read()?;
    // Profile by profile, so that what the programs of one need of shared dependencies doesn't end up in another's.
    let profiles: BTreeSet<_> = description.programs.values().map(|program| &program.profile).collect();
    for profile in profiles {
        let of_profile = description.programs.iter().filter(|(_, program)| program.profile == *profile);
        let packages: Vec<_> = of_profile.map(|(name, _)| file_name(name)).collect();
        let mut compile = cargo(architecture)?;
        compile.args(["--profile", profile]);
        for package in &packages {
            compile.args(["--package", package]);
        }
        step(format!("compiling {} for {}", packages.join(" and "), architecture.name()), || {
            command::run(&mut compile)
        })?;
    }
    let folder = compiled().join("images").join(architecture.name());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for (name, program) in &description.programs {
        let file = compiled().join(architecture.target()).join(&program.profile).join(file_name(name));
        let configuration = description.configuration(name, program, architecture);
        archive::pack(&file, &description.reference(name), configuration, &archive_in(&folder, name))
            .with_context(|| format!("cannot pack {name}"))?;
    }
    Ok(folder)
}

/// `cargo build` of static programs, with the list of their crates in them.
fn cargo(architecture: Architecture) -> Result<Command> {
    let target = architecture.target();
    if command::exists("rustup") {
        command::run(
            Command::new("rustup").args(["target", "add", &target]).current_dir(paths::workspace()),
        )?;
    }
    let mut cargo = command::cargo();
    // Programs don't depend on who compiles them.
    cargo.env_remove("RUSTFLAGS").env("PATH", crates::path(&[crates::AUDITABLE])?).arg("auditable");
    // Some dependencies have C in them.
    if architecture == Architecture::own()? {
        if !command::exists("musl-gcc") {
            packages::ensure_installed(&[packages::MUSL])?;
        }
        cargo.arg("build").env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    } else {
        cross::compile_with_zig(&mut cargo)?;
    }
    cargo.args(["--target", &target, "--target-dir"]).arg(compiled());
    Ok(cargo)
}

/// Fails where an image has anything but its program, is larger than it may be, or doesn't say what crates the program is
/// made of.
pub(crate) fn check(folder: &Path) -> Result<()> {
    let description = Description::read()?;
    for (name, program) in &description.programs {
        let archive = Archive::open(&archive_in(folder, name))?;
        let size = archive.compressed()?;
        println!("{name}: {} kB, compressed {} kB", archive.size()? / 1000, size / 1000);
        ensure!(
            size <= program.budget,
            "{name} takes {size} bytes, {} more than its budget in nix/images.json",
            size - program.budget
        );
        let files = archive.content()?.files;
        ensure!(
            matches!(&files[..], [layer] if layer.len() == 2 && layer[1].ends_with(&format!("./{}", file_name(name)))),
            "{name}: there is more in the image than its program: {files:?}"
        );
        let program = archive.program(&file_name(name))?;
        ensure!(!mentions(&program, b"/nix/store/")?, "{name} refers to the store of Nix");
        let crates = crates_of(&program)?;
        let own = format!("\"{}\"", file_name(name));
        ensure!(
            crates.contains(&own) && crates.contains("\"rustls\""),
            "{name} names its crates wrong: {crates}"
        );
    }
    Ok(())
}

/// Whether these bytes are anywhere in a file.
fn mentions(file: &Path, bytes: &[u8]) -> Result<bool> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(content.windows(bytes.len()).any(|window| window == bytes))
}

/// What a program says that it is made of, as a scanner of images would find it.
fn crates_of(program: &Path) -> Result<String> {
    command::output(crates::command(crates::AUDIT_INFO)?.arg(program))
        .with_context(|| format!("{} doesn't say what crates it is made of", program.display()))
}

/// The archive of a program's image in a folder of them.
pub(crate) fn archive_in(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.tar"))
}

/// Where cargo keeps what it compiled.
pub(crate) fn compiled() -> PathBuf {
    paths::workspace().join("target")
}
