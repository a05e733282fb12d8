//! What a machine must have before anything starts: all that is missing in one message, not one at a time.

use std::env::consts::{ARCH, OS};

use anyhow::{Result, ensure};

use crate::cli::Built;
use crate::engine::Engine;
use crate::{binaries, packages};

/// Fails with what to install where the tests can't run.
pub(crate) fn check(built: &Built) -> Result<()> {
    let mut missing = Vec::new();
    if OS != "linux" || !["x86_64", "aarch64"].contains(&ARCH) {
        missing.push(format!("Linux on x86_64 or aarch64 (this is {OS} on {ARCH})"));
    }
    if built.tools.is_none()
        && let Err(reason) = binaries::check_go()
    {
        missing.push(reason.to_string());
    }
    if Engine::running().is_none() && !packages::are_installable() {
        missing.push(
            "a container engine that answers `docker info`, or root on Debian for a private one".to_owned(),
        );
    }
    ensure!(
        missing.is_empty(),
        "please install what the tests on a real cluster need:\n    - {}",
        missing.join("\n    - ")
    );
    Ok(())
}
