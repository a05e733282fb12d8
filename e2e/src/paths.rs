//! Where things are in the checkout.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The checkout: cargo says where, and without cargo it is the current directory.
pub(crate) fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package
        .and_then(|package| Some(package.parent()?.to_owned()))
        .unwrap_or_else(|| std::env::current_dir().unwrap_or_default())
}

/// Fails unless there is a checkout.
pub(crate) fn check() -> Result<()> {
    let file = workspace().join("manifests/kustomization.yaml");
    ensure!(file.is_file(), "{} is missing; run this in a checkout of the project", file.display());
    Ok(())
}

/// A file of `e2e/cluster`.
pub(crate) fn cluster(name: &str) -> PathBuf {
    workspace().join("e2e/cluster").join(name)
}

/// A file of the folder where a run leaves what is worth a look; the folder is made if missing.
pub(crate) fn left_over(name: &str) -> Result<PathBuf> {
    let folder = workspace().join("target/e2e");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder.join(name))
}
