//! What is expensive to make and outlives a checkout: `${XDG_CACHE_HOME:-~/.cache}/migrations-operator/<name>-<hash>`.
//!
//! An entry is complete or absent: it is filled beside its place and renamed. Its hash names everything it is made
//! from, so a warm entry needs no further look.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{interrupt, progress};

/// What an entry is made from.
#[derive(Default)]
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Adds a text, such as a version or a list of flags.
    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the content of a file.
    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.text(&content))
    }

    /// Adds every file of a folder, in the order of their names.
    pub(crate) fn folder(mut self, path: &Path) -> Result<Self> {
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            self = self.file(path)?;
        }
        Ok(self)
    }

    /// A short name for exactly these inputs.
    pub(crate) fn hash(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().take(6).fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        })
    }
}

/// The cache's folder, made if missing.
pub(crate) fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => std::env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    let root = base.join("migrations-operator");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    Ok(root)
}

/// The folder of `name` made from `inputs`, filled by `fill` where it isn't there yet.
pub(crate) fn entry(name: &str, inputs: Inputs, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = root()?.join(format!("{name}-{}", inputs.hash()));
    if place.exists() {
        return Ok(place);
    }
    let _lock = lock(name)?;
    if place.exists() {
        return Ok(place);
    }
    let unfinished =
        tempfile::Builder::new().prefix(&format!("{name}-")).suffix(".unfinished").tempdir_in(root()?)?;
    fill(unfinished.path())?;
    fs::rename(unfinished.keep(), &place).with_context(|| format!("cannot create {}", place.display()))?;
    Ok(place)
}

/// One holder at a time on this machine; released when the file is dropped or the process ends.
pub(crate) fn lock(name: &str) -> Result<File> {
    let path = root()?.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if held(&file)? {
        progress::step(format!("waiting for another run that holds {}", path.display()), || {
            while held(&file)? {
                anyhow::ensure!(!interrupt::raised(), "interrupted");
                thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        })?;
    }
    Ok(file)
}

/// Takes the lock, or says that someone else has it.
fn held(file: &File) -> Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock a file of the cache"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let one = Inputs::default().text("ab").text("c").hash();
        let other = Inputs::default().text("a").text("bc").hash();
        assert_ne!(one, other);
        assert_eq!(one.len(), 12);
    }
}
