//! The container engine: the machine's own where one answers, else a private `dockerd` that is ours to start and stop.
//!
//! The private one shares nothing with the machine: its own socket, state and images (in the cache, so that they
//! outlive a run), no default bridge and no firewall rules, so stopping it leaves nothing behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::progress::step;
use crate::{cache, command, packages, paths};

const RUN: &str = "/run/migrations-e2e";
const STARTS_WITHIN: Duration = Duration::from_mins(1);
const STOPS_WITHIN: Duration = Duration::from_mins(1);
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// A container engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    private: bool,
}

impl Engine {
    /// The engine that answers already, if any: a private one of an earlier run first.
    pub(crate) fn running() -> Option<Self> {
        [true, false].map(|private| Self { private }).into_iter().find(Self::answers)
    }

    /// The engine that answers already, else a private one, installed if need be.
    pub(crate) fn find_or_start() -> Result<Self> {
        if let Some(engine) = Self::running() {
            return Ok(engine);
        }
        packages::ensure_installed(&packages::ALL)?;
        let engine = Self { private: true };
        step("starting a private container engine", || engine.start())?;
        Ok(engine)
    }

    /// Whether it was started by this harness: it has no network for builds, and ends with the harness.
    pub(crate) fn is_private(&self) -> bool {
        self.private
    }

    /// `docker`, bound to this engine.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        self.bind(&mut command);
        command
    }

    /// Makes a program that uses docker use this engine.
    pub(crate) fn bind(&self, command: &mut Command) {
        if self.private {
            // Debian's client is the one that fits Debian's daemon, and its classic builder is the one that is there.
            command
                .env("DOCKER_HOST", format!("unix://{RUN}/docker.sock"))
                .env("DOCKER_BUILDKIT", "0")
                .env("PATH", system_path());
        }
    }

    /// Whether an image of this name is there.
    pub(crate) fn has_image(&self, name: &str) -> bool {
        command::succeeds(self.docker().args(["image", "inspect", name]))
    }

    /// What identifies the content of images, one a line.
    pub(crate) fn image_ids(&self, images: &[String]) -> Result<String> {
        let mut inspect = self.docker();
        inspect.args(["image", "inspect", "--format", "{{.RepoTags}} {{.Id}}"]).args(images);
        if images.is_empty() { Ok(String::new()) } else { command::output(&mut inspect) }
    }

    /// Stops the engine if it is ours; its images stay in the cache.
    pub(crate) fn stop(&self) -> Result<()> {
        if !self.private {
            return Ok(());
        }
        // kind makes this network; its bridge would outlive the engine. It may not exist.
        let _ = command::run_to_end(self.docker().args(["network", "rm", "kind"]));
        step("stopping the private container engine", stop_daemon)?;
        fs::remove_dir_all(RUN).with_context(|| format!("cannot remove {RUN}"))
    }

    fn answers(&self) -> bool {
        if self.private && !Path::new(RUN).join("docker.sock").exists() {
            return false;
        }
        let mut info = self.docker();
        info.args(["info", "--format", "{{.ServerVersion}}"]);
        // Without a server some clients still succeed, and print nothing.
        command::output_to_end(&mut info).is_ok_and(|version| !version.is_empty())
    }

    fn start(&self) -> Result<()> {
        stop_daemon()?;
        let run = Path::new(RUN);
        fs::create_dir_all(run).with_context(|| format!("cannot create {RUN}"))?;
        let configuration = run.join("daemon.json");
        fs::write(&configuration, configure(run)?)?;
        let log = File::create(run.join("dockerd.log"))?;
        let mut daemon = Command::new("dockerd")
            .arg("--config-file")
            .arg(&configuration)
            .env("PATH", system_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start dockerd")?;
        let started = Instant::now();
        while !self.answers() {
            let ended = daemon.try_wait()?;
            if ended.is_some() || started.elapsed() > STARTS_WITHIN || crate::interrupt::raised() {
                let said = fs::read_to_string(run.join("dockerd.log")).unwrap_or_default();
                let last: Vec<_> = said.lines().rev().take(10).collect();
                command::stop(&mut daemon)?;
                bail!("dockerd did not start; it said last:\n    {}", last.join("\n    "));
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

fn configure(run: &Path) -> Result<String> {
    let mut configuration = json!({
        "hosts": [format!("unix://{}", run.join("docker.sock").display())],
        "pidfile": run.join("docker.pid"),
        "exec-root": run.join("exec"),
        "data-root": cache::root()?.join("engine"),
        // No default bridge, no firewall rules, no forwarding: nothing of a container leaves the machine,
        // and nothing of the engine stays on it.
        "bridge": "none",
        "iptables": false,
        "ip-forward": false,
        // A node looks a name up before any rule of ours can be in place.
        "dns": ["127.0.0.1"],
    });
    if !may_raise_limits()? {
        let wrapper = run.join("runc-without-sys-resource");
        fs::copy(paths::cluster("runc-without-sys-resource"), &wrapper)?;
        configuration["runtimes"] = json!({"limited": {"path": wrapper}});
        configuration["default-runtime"] = json!("limited");
    }
    Ok(configuration.to_string())
}

/// Whether privileged containers can have all that docker wants to give them here.
fn may_raise_limits() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("no CapBnd")?;
    Ok(u64::from_str_radix(bounding.trim(), 16)? & CAP_SYS_RESOURCE != 0)
}

/// Stops the daemon whose pid our pidfile names, if that process is still one.
fn stop_daemon() -> Result<()> {
    let Some(pid) = daemon_pid() else { return Ok(()) };
    kill(pid, Signal::SIGTERM).context("cannot stop dockerd")?;
    let asked = Instant::now();
    while daemon_pid().is_some() {
        ensure!(asked.elapsed() < STOPS_WITHIN, "dockerd (process {pid}) does not stop");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn daemon_pid() -> Option<Pid> {
    let pid = fs::read_to_string(Path::new(RUN).join("docker.pid")).ok()?.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A daemon that this very process started and nobody waited for stays as a zombie.
    (name.trim() == "dockerd" && !state.contains(") Z ")).then_some(Pid::from_raw(pid))
}

fn system_path() -> OsString {
    let mut folders: Vec<PathBuf> = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from).into();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(folders).unwrap_or_default()
}
