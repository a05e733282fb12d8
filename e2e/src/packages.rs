//! Debian packages that the harness needs: installed where it may (root, apt), asked for in one message where not.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::command;
use crate::progress::{note, step};

/// A package, and what shows that it is there.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    name: &'static str,
    shown_by: &'static str,
}

/// The container engine.
pub(crate) const DOCKER: Package = Package { name: "docker.io", shown_by: "/usr/sbin/dockerd" };
/// Makes root file systems from Debian packages.
pub(crate) const MMDEBSTRAP: Package = Package { name: "mmdebstrap", shown_by: "/usr/bin/mmdebstrap" };
/// Debian's keys, for machines that are a derivative.
pub(crate) const KEYRING: Package =
    Package { name: "debian-archive-keyring", shown_by: "/usr/share/keyrings/debian-archive-keyring.gpg" };
/// The C compiler.
pub(crate) const GCC: Package = Package { name: "gcc", shown_by: "/usr/bin/gcc" };
/// What programs in C are linked with.
pub(crate) const LIBC: Package = Package { name: "libc6-dev", shown_by: "/usr/include/stdlib.h" };
/// The C compiler for static programs.
pub(crate) const MUSL: Package = Package { name: "musl-tools", shown_by: "/usr/bin/musl-gcc" };

/// Makes a program of one distribution one of another.
pub(crate) const PATCHELF: Package = Package { name: "patchelf", shown_by: "/usr/bin/patchelf" };

/// Downloads Python packages.
const PIP: Package = Package { name: "python3-pip", shown_by: "/usr/bin/pip3" };

/// What assembling the node image takes.
pub(crate) const NODE_IMAGE: [Package; 4] = [MMDEBSTRAP, KEYRING, GCC, LIBC];

/// Runs programs of other processors.
pub(crate) const QEMU: Package =
    Package { name: "qemu-user-static", shown_by: "/usr/bin/qemu-aarch64-static" };

/// Finds mistakes in shell scripts.
pub(crate) const SHELLCHECK: Package = Package { name: "shellcheck", shown_by: "/usr/bin/shellcheck" };

/// Everything that a machine with neither an engine nor a registry needs.
pub(crate) const ALL: [Package; 6] = [DOCKER, MMDEBSTRAP, KEYRING, GCC, LIBC, MUSL];

/// Installs those of the packages that are missing.
pub(crate) fn ensure_installed(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(
        command::exists("apt-get"),
        "please install what Debian names {names}: this machine has no apt-get"
    );
    ensure!(is_root(), "please install {names}: sudo apt-get install {names}");
    note(format!("installing Debian packages: {names}"));
    let _quiet = ServicesStayStopped::begin()?;
    step("apt-get update", || command::run_to_end(apt().arg("update")))?;
    step("apt-get install", || {
        command::run_to_end(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
    })
}

/// Python's package installer.
pub(crate) fn pip() -> Result<Command> {
    let mut python = Command::new("python3");
    if !command::succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        ensure_installed(&[PIP])?;
        python = Command::new("/usr/bin/python3");
    }
    python.args(["-m", "pip"]);
    Ok(python)
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    let absent = |package: &&Package| !Path::new(package.shown_by).exists();
    packages.iter().filter(absent).map(|package| package.name).collect()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether [`ensure_installed`] can do its work here.
pub(crate) fn are_installable() -> bool {
    is_root() && (command::exists("apt-get") || missing(&ALL).is_empty())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("--quiet").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Debian starts a service when it is installed; its policy file says no while this lives.
struct ServicesStayStopped(Option<&'static Path>);

impl ServicesStayStopped {
    fn begin() -> Result<Self> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self(None));
        }
        fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self(Some(policy)))
    }
}

impl Drop for ServicesStayStopped {
    fn drop(&mut self) {
        if let Some(policy) = self.0 {
            let _ = fs::remove_file(policy);
        }
    }
}
