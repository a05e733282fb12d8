//! Images as archives, in the form that `docker save` writes: packed from one program, and read back to be compared.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::command;

/// The name of a layer in its folder.
const LAYER: &str = "layer.tar";

/// Says which commit an image is of.
const REVISION: &str = "org.opencontainers.image.revision";

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Packs `program` alone, as the image `reference` with this configuration. What goes in decides every byte.
pub(super) fn pack(program: &Path, reference: &str, mut configuration: Value, archive: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let [root, image] = ["root", "image"].map(|name| work.path().join(name));
    fs::create_dir(&root)?;
    let file = root.join(program.file_name().context("a program has a name")?);
    fs::copy(program, &file).with_context(|| format!("cannot read {}", program.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o555))?;
    let layer = work.path().join(LAYER);
    // With an entry for the root itself, as Nix packs it.
    tar(&root, &[".".into()], &layer)?;

    let digest = digest(&layer)?;
    fs::create_dir_all(image.join(&digest))?;
    fs::rename(&layer, image.join(&digest).join(LAYER))?;
    configuration["rootfs"] = json!({"type": "layers", "diff_ids": [format!("sha256:{digest}")]});
    let configuration = configuration.to_string();
    let name = format!("{}.json", hexadecimal(&Sha256::digest(&configuration)));
    fs::write(image.join(&name), configuration)?;
    let manifest =
        json!([{"Config": name, "RepoTags": [reference], "Layers": [format!("{digest}/{LAYER}")]}]);
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    // Not every reader finds `./manifest.json`.
    let mut names = fs::read_dir(&image)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    names.sort();
    tar(&image, &names, archive)
}

/// What is in a folder under these names, by nobody and at no time.
fn tar(folder: &Path, names: &[OsString], archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@1", "--owner=0", "--group=0", "--numeric-owner", "--mode=a+rX,go-w"]);
    tar.arg("--directory").arg(folder).arg("--create").arg("--file").arg(archive);
    command::run(tar.args(names))
}

/// An archive that was unpacked to be looked at.
pub(crate) struct Archive {
    folder: TempDir,
    manifest: Manifest,
}

/// What an image is, whoever packed it and whatever they wrote beside it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    names: Vec<String>,
    platform: String,
    /// What it is started with, and what is said of it but for the commit, which not everyone who packs knows.
    configuration: Value,
    /// Mode, owner, size and name of each file, layer by layer.
    pub(super) files: Vec<Vec<String>>,
}

impl Archive {
    /// Reads an archive of one image.
    pub(crate) fn open(archive: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut unpack = Command::new("tar");
        unpack.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder.path());
        command::run(&mut unpack)?;
        let text = fs::read_to_string(folder.path().join("manifest.json"))
            .with_context(|| format!("{} isn't an archive of images", archive.display()))?;
        let manifests: [Manifest; 1] =
            serde_json::from_str(&text).with_context(|| format!("manifest.json of {}", archive.display()))?;
        let [manifest] = manifests;
        Ok(Self { folder, manifest })
    }

    /// What the image is.
    pub(crate) fn content(&self) -> Result<Content> {
        let text = fs::read_to_string(self.folder.path().join(&self.manifest.config))?;
        let mut image: Value = serde_json::from_str(&text)?;
        if let Some(labels) = image.pointer_mut("/config/Labels").and_then(Value::as_object_mut) {
            labels.remove(REVISION);
        }
        Ok(Content {
            names: self.manifest.repo_tags.clone(),
            platform: format!("{}/{}", image["os"], image["architecture"]),
            configuration: image["config"].clone(),
            files: self.layers().map(|layer| files(&layer)).collect::<Result<_>>()?,
        })
    }

    /// The digest of each layer: those of two images are equal if every byte of their files is.
    pub(crate) fn digests(&self) -> Result<Vec<String>> {
        self.layers().map(|layer| digest(&layer)).collect()
    }

    /// How large it is unpacked, in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        self.layers().map(|layer| Ok(fs::metadata(layer)?.len())).sum()
    }

    /// How large it is in a registry, in bytes.
    pub(crate) fn compressed(&self) -> Result<u64> {
        let mut size = 0;
        for layer in self.layers() {
            let compressed = self.folder.path().join("layer.gz");
            let mut gzip = Command::new("sh");
            gzip.args(["-c", r#"exec gzip -9 --no-name --stdout "$1" > "$2""#, "gzip"]);
            command::run(gzip.arg(&layer).arg(&compressed))?;
            size += fs::metadata(&compressed)?.len();
        }
        Ok(size)
    }

    /// The one program in it, as a file of this machine for as long as the archive is open.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        for layer in self.layers() {
            let mut unpack = Command::new("tar");
            unpack.arg("--extract").arg("--file").arg(layer).arg("--directory").arg(self.folder.path());
            command::run(&mut unpack)?;
        }
        let program = self.folder.path().join(name);
        ensure!(program.is_file(), "there is no {name} in the image");
        Ok(program)
    }

    fn layers(&self) -> impl Iterator<Item = PathBuf> {
        self.manifest.layers.iter().map(|layer| self.folder.path().join(layer))
    }
}

/// The files of a layer, without their times.
fn files(layer: &Path) -> Result<Vec<String>> {
    let mut list = Command::new("tar");
    let listed = command::output(list.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(layer))?;
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [mode, owner, size, _, _, ref name @ ..] => format!("{mode} {owner} {size} {}", name.join(" ")),
        _ => line.to_owned(),
    };
    Ok(listed.lines().map(line).collect())
}

fn digest(file: &Path) -> Result<String> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(hexadecimal(&Sha256::digest(content)))
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

    /// Packs a program of these bytes.
    fn packed(folder: &Path, bytes: &[u8]) -> PathBuf {
        let program = folder.join("migrations-sample");
        fs::write(&program, bytes).unwrap();
        let archive = folder.join("sample.tar");
        let configuration =
            json!({"os": "linux", "architecture": "amd64", "config": {"User": "65532:65532"}});
        pack(&program, "registry.example/sample:1", configuration, &archive).unwrap();
        archive
    }

    #[test]
    fn an_archive_holds_the_program_alone_for_anyone_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(&packed(folder.path(), b"program")).unwrap();
        assert_eq!(
            archive.content().unwrap(),
            Content {
                names: vec!["registry.example/sample:1".to_owned()],
                platform: r#""linux"/"amd64""#.to_owned(),
                configuration: json!({"User": "65532:65532"}),
                files: vec![vec![
                    "drwxr-xr-x 0/0 0 ./".to_owned(),
                    "-r-xr-xr-x 0/0 7 ./migrations-sample".to_owned()
                ]],
            }
        );
        assert_eq!(fs::read(archive.program("migrations-sample").unwrap()).unwrap(), b"program");
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let [one, other, different] = [&b"same"[..], b"same", b"else"].map(|bytes| {
            let folder = tempfile::tempdir().unwrap();
            digest(&packed(folder.path(), bytes)).unwrap()
        });
        assert_eq!(one, other);
        assert_ne!(one, different);
    }

    #[test]
    fn nothing_in_it_tells_when_it_was_packed() {
        let folder = tempfile::tempdir().unwrap();
        let archive = packed(folder.path(), b"program");
        let layer = Archive::open(&archive).unwrap();
        for tar in layer.layers().chain([archive]) {
            let mut list = Command::new("tar");
            list.env("TZ", "UTC").args(["--list", "--verbose", "--file"]).arg(&tar);
            let listed = command::output(&mut list).unwrap();
            assert!(listed.lines().all(|line| line.contains(" 1970-01-01 ")), "{listed}");
        }
    }

    #[test]
    fn digests_are_written_as_everyone_writes_them() {
        assert!(hexadecimal(&Sha256::digest("")).starts_with("e3b0c44298fc1c14"));
    }
}
