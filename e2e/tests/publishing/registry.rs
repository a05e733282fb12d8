//! A registry on this machine, which ends with its test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

use crate::PROGRAMS;
use crate::archive::images;
use crate::script::{run, script};

/// A registry, with the archives that are pushed to it.
pub(crate) struct Registry {
    process: Child,
    port: String,
    blobs: TempDir,
    archives: TempDir,
}

impl Registry {
    /// An empty one.
    pub(crate) fn start() -> Self {
        let blobs = TempDir::new().unwrap();
        let mut process = Command::new("crane")
            .args(["registry", "serve", "--address", "127.0.0.1:0", "--disk"])
            .arg(blobs.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let port = lines.find_map(|line| Some(line.unwrap().split_once("serving on port ")?.1.to_owned()));
        thread::spawn(move || lines.for_each(|_| ()));
        Self { process, port: port.unwrap(), blobs, archives: TempDir::new().unwrap() }
    }

    /// Where its images are.
    pub(crate) fn owner(&self) -> String {
        format!("127.0.0.1:{}/owner", self.port)
    }

    /// The name of an image.
    pub(crate) fn image(&self, program: &str) -> String {
        format!("{}/migrations-{program}", self.owner())
    }

    /// The argument that pushes images of an architecture, made of `content`.
    pub(crate) fn archives(&self, architecture: &str, content: &str) -> String {
        let folder = self.archives.path().join(format!("{content}-{architecture}"));
        images(&folder, architecture, content).unwrap();
        format!("{architecture}={}", folder.display())
    }

    /// Publishes images for both architectures as `tag`; says what the script prints.
    pub(crate) fn push(&self, tag: &str, content: &str) -> Vec<String> {
        let architectures = ["amd64", "arm64"].map(|architecture| self.archives(architecture, content));
        run(script("push").arg(self.owner()).arg(tag).args(architectures)).lines()
    }

    /// What a client says of it.
    pub(crate) fn crane(args: &[&str]) -> Vec<String> {
        run(Command::new("crane").args(args)).lines()
    }

    /// What a tag of each image means.
    pub(crate) fn indexes(&self, tag: &str) -> Vec<String> {
        let index = |program| {
            let image = self.image(program);
            let digest = Self::crane(&["digest", &format!("{image}:{tag}")]);
            format!("{image}@{}", digest[0])
        };
        PROGRAMS.map(index).to_vec()
    }

    /// The images that have a tag.
    pub(crate) fn tagged(&self, tag: &str) -> Vec<&'static str> {
        let has = |program: &&str| Self::crane(&["ls", &self.image(program)]).iter().any(|name| name == tag);
        PROGRAMS.into_iter().filter(has).collect()
    }

    /// The content that has this digest.
    pub(crate) fn content(&self, digest: &str) -> Vec<u8> {
        fs::read(self.file(digest)).unwrap()
    }

    /// Flips a bit in the content that has this digest.
    pub(crate) fn spoil(&self, digest: &str) {
        let mut content = self.content(digest);
        *content.last_mut().unwrap() ^= 1;
        fs::write(self.file(digest), content).unwrap();
    }

    /// Where the content that has this digest is kept.
    fn file(&self, digest: &str) -> PathBuf {
        let (algorithm, hash) = digest.split_once(':').unwrap();
        self.blobs.path().join(algorithm).join(hash)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
