//! Where things are in the checkout.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The checkout.
pub(crate) fn workspace() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
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
