//! Small images as archives, of the shape that `nix build .#images` gives.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::PROGRAMS;

/// An archive for each program: one layer with one file, which holds `content`.
pub(crate) fn images(folder: &Path, architecture: &str, content: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for program in PROGRAMS {
        let work = tempfile::tempdir()?;
        let (layer, image) = (work.path().join("layer"), work.path().join("image"));
        fs::create_dir_all(&layer)?;
        fs::create_dir_all(&image)?;
        fs::write(layer.join(program), format!("{program} for {architecture}: {content}"))?;
        pack(&layer, &image.join("layer.tar"))?;
        let diff = format!("sha256:{}", hash(&fs::read(image.join("layer.tar"))?));
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": [format!("/{program}")] },
            "rootfs": { "type": "layers", "diff_ids": [diff] },
        });
        fs::write(image.join("config.json"), config.to_string())?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"] }]);
        fs::write(image.join("manifest.json"), manifest.to_string())?;
        pack(&image, &folder.join(program).with_extension("tar"))?;
    }
    Ok(())
}

/// The same files make the same archive.
fn pack(folder: &Path, archive: &Path) -> io::Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--mtime=@1",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u=rwX,go=rX",
    ]);
    let status =
        tar.arg("--directory").arg(folder).arg("--create").arg("--file").arg(archive).arg(".").status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("tar failed")) }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}
