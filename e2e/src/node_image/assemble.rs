//! Assembles a node image from Debian packages, kind's own base files and the pinned programs, without any registry.
//!
//! `e2e/cluster/node/Dockerfile` says what happens inside; here is what comes into it, and in which order.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::binaries::{self, Binaries};
use crate::cache::{self, Inputs};
use crate::engine::Engine;
use crate::progress::step;
use crate::{command, packages, paths};

const SUITE: &str = "trixie";
const PACKAGES: &str = "systemd,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,\
                        e2fsprogs,ca-certificates,curl,jq,procps,runc,dbus";
const REPOSITORY: &str = "migrations-e2e/node";
/// Debian in the engine, and on it the node without its images: both only on the way.
const BASE: &str = "migrations-e2e/node-base";
const BARE: &str = "migrations-e2e/node-bare";

/// A tar of Debian with what a node needs, such as the application's image may also want.
pub(crate) fn debian_base() -> Result<PathBuf> {
    let inputs = Inputs::default().text(SUITE).text(PACKAGES).text(std::env::consts::ARCH);
    packages::ensure_installed(&packages::NODE_IMAGE)?;
    let folder = cache::entry("debian", inputs, |folder| {
        step("making a Debian root file system", || {
            let mut make = Command::new("mmdebstrap");
            make.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE])
                .arg(folder.join("base.tar"));
            command::run(&mut make)
        })
    })?;
    Ok(folder.join("base.tar"))
}

/// Names everything that the assembled image is made from, this recipe included.
pub(super) fn tag() -> Result<String> {
    let inputs = Inputs::default()
        .folder(&paths::cluster("node"))?
        .folder(&paths::cluster("controlplane"))?
        .folder(&paths::cluster("nodetools"))?
        .text(include_str!("assemble.rs"))
        .text(include_str!("../binaries.rs"))
        .text(std::env::consts::ARCH);
    Ok(format!("{REPOSITORY}:{}-{}", binaries::kubernetes_version()?, inputs.hash()))
}

/// Makes the image and names it `tag`.
pub(super) fn assemble(engine: &Engine, tag: &str) -> Result<()> {
    let base = debian_base()?;
    let kubernetes = Binaries::control_plane()?;
    let tools = Binaries::node_tools()?;
    let work = tempfile::tempdir_in(cache::root()?)?;
    let maker = Maker { engine, kubernetes, tools, work: work.path() };

    step("importing Debian into the engine", || {
        command::run(engine.docker().arg("import").arg(&base).arg(BASE))
    })?;
    let images = maker.system_images()?;
    let archive = step("making the system images", || maker.save_system_images(&images))?;
    step("building the node image", || maker.build_node(&images))?;
    step("putting the system images into it", || maker.preload(&archive, tag))?;
    // The layers stay; these names would only be in the way.
    command::run(engine.docker().args(["rmi", BASE, BARE]))?;
    forget_older(engine, tag)
}

/// Removes images that earlier recipes made, except where a cluster still runs on one.
fn forget_older(engine: &Engine, tag: &str) -> Result<()> {
    let mut list = engine.docker();
    list.args(["images", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY]);
    for older in command::output(&mut list)?.lines().filter(|name| *name != tag) {
        let _ = command::run(engine.docker().args(["rmi", older]));
    }
    Ok(())
}

struct Maker<'a> {
    engine: &'a Engine,
    kubernetes: Binaries,
    tools: Binaries,
    work: &'a Path,
}

impl Maker<'_> {
    /// The images that kubeadm starts a cluster with, by their full names.
    fn system_images(&self) -> Result<Vec<String>> {
        let mut list = self.kubernetes.command("kubeadm");
        list.args(["config", "images", "list", "--kubernetes-version", &binaries::kubernetes_version()?]);
        Ok(command::output(&mut list)?.lines().map(str::to_owned).collect())
    }

    /// One program an image: that is all they need.
    fn save_system_images(&self, images: &[String]) -> Result<PathBuf> {
        for image in images {
            self.system_image(image).with_context(|| format!("cannot make {image}"))?;
        }
        let archive = self.work.join("images.tar");
        command::run(self.engine.docker().arg("save").arg("--output").arg(&archive).args(images))?;
        command::run(self.engine.docker().arg("rmi").args(images))?;
        Ok(archive)
    }

    fn system_image(&self, image: &str) -> Result<()> {
        let (name, version) = name_and_version(image).context("not an image name with a tag")?;
        let root = self.work.join(format!("image-{name}"));
        match name {
            "pause" => {
                fs::create_dir_all(&root)?;
                compile_pause(version, &root.join("pause"))?;
                self.import(&root, r#"ENTRYPOINT ["/pause"]"#, image)
            }
            "coredns" => {
                place(self.tools.folder(), name, &root)?;
                self.import(&root, r#"ENTRYPOINT ["/coredns"]"#, image)
            }
            "kube-proxy" => {
                place(self.kubernetes.folder(), name, &root)?;
                let dockerfile = format!("FROM {BASE}\nCOPY {name} /usr/local/bin/\n");
                fs::write(root.join("Dockerfile"), dockerfile)?;
                command::run(self.engine.docker().args(["build", "--tag", image]).arg(&root))
            }
            _ => {
                place(self.kubernetes.folder(), name, &root.join("usr/local/bin"))?;
                self.import(&root, "ENV PATH=/usr/local/bin:/usr/bin:/bin", image)
            }
        }
    }

    fn import(&self, root: &Path, change: &str, image: &str) -> Result<()> {
        let tar = self.work.join("image.tar");
        command::run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg("."))?;
        command::run(self.engine.docker().args(["import", "--change", change]).arg(&tar).arg(image))
    }

    fn build_node(&self, images: &[String]) -> Result<()> {
        let context = self.work.join("node");
        copy_kind_files(&context.join("kind"))?;
        self.lay_out_root(&context.join("root"))?;
        fs::copy(paths::cluster("node/Dockerfile"), context.join("Dockerfile"))?;
        let pause =
            images.iter().find(|image| image.contains("/pause:")).context("kubeadm names no pause image")?;
        let mut build = self.engine.docker();
        build.args(["build", "--tag", BARE, "--build-arg", &format!("BASE={BASE}")]);
        command::run(build.args(["--build-arg", &format!("PAUSE={pause}")]).arg(&context))
    }

    fn lay_out_root(&self, root: &Path) -> Result<()> {
        for name in ["kubeadm", "kubelet", "kubectl"] {
            place(self.kubernetes.folder(), name, &root.join("usr/bin"))?;
        }
        for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
            place(self.tools.folder(), name, &root.join("usr/local/bin"))?;
        }
        for name in ["host-local", "loopback", "ptp", "portmap"] {
            place(self.tools.folder(), name, &root.join("opt/cni/bin"))?;
        }
        let ours = paths::cluster("node");
        place(&ours, "hermetic", &root.join("usr/local/sbin"))?;
        place(&ours, "hermetic.service", &root.join("etc/systemd/system"))?;
        place(&ours, "pods.conflist", &root.join("kind"))?;
        place(&ours, "default-storage.yaml", &root.join("kind/manifests"))?;
        // kind reads it, and the network isn't its business here.
        fs::write(root.join("kind/manifests/default-cni.yaml"), "")?;
        fs::write(root.join("kind/version"), binaries::kubernetes_version()?)
            .context("cannot write kind/version")
    }

    fn preload(&self, archive: &Path, tag: &str) -> Result<()> {
        const NAME: &str = "migrations-e2e-preload";
        let remove = || command::run_to_end(self.engine.docker().args(["rm", "--force", "--volumes", NAME]));
        // One may be left from a run that was killed.
        let _ = remove();
        let script = fs::read_to_string(paths::cluster("node/preload"))?;
        let mut import = self.engine.docker();
        import.args(["run", "--interactive", "--name", NAME, "--privileged", "--network", "none"]);
        import.args(["--entrypoint", "sh", BARE, "-c", &script]);
        let imported = command::run_with_input(File::open(archive)?, &mut import).and_then(|()| {
            let entry = r#"ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]"#;
            command::run(
                self.engine.docker().args(["commit", "--change", entry, "--change", "CMD []", NAME, tag]),
            )
        });
        imported.and(remove())
    }
}

fn compile_pause(version: &str, to: &Path) -> Result<()> {
    let source = binaries::module_folder("k8s.io/kubernetes")?.join("build/pause/linux/pause.c");
    let mut compile = Command::new("gcc");
    compile.args(["-Os", "-static", "-s", &format!("-DVERSION=v{version}"), "-o"]).arg(to).arg(source);
    command::run(&mut compile)
}

/// `registry.k8s.io/coredns/coredns:v1.14.2` as `coredns` and `1.14.2`.
fn name_and_version(image: &str) -> Option<(&str, &str)> {
    let (name, tag) = image.rsplit('/').next()?.split_once(':')?;
    Some((name, tag.trim_start_matches('v')))
}

fn place(from: &Path, name: &str, to: &Path) -> Result<()> {
    let from = from.join(name);
    fs::create_dir_all(to)?;
    fs::copy(&from, to.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// kind's base files, straight from the pinned module, where nothing is writable or executable.
fn copy_kind_files(to: &Path) -> Result<()> {
    let from = binaries::module_folder("sigs.k8s.io/kind")?.join("images/base/files");
    ensure!(from.is_dir(), "the kind module has no {}", from.display());
    copy_tree(&from, to)?;
    for scripts in ["usr/local/bin", "kind/bin"] {
        for script in fs::read_dir(to.join(scripts))? {
            fs::set_permissions(script?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_taken_apart() {
        assert_eq!(name_and_version("registry.k8s.io/coredns/coredns:v1.14.2"), Some(("coredns", "1.14.2")));
        assert_eq!(name_and_version("registry.k8s.io/etcd:3.6.8-0"), Some(("etcd", "3.6.8-0")));
    }
}
