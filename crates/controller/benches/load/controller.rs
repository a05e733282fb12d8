//! The controller as a process, and what the kernel says of its memory.

use std::fmt;
use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_testkit::cluster::{ControlPlane, free_ports};

/// How long it may take to be ready.
const START: Duration = Duration::from_mins(3);

/// How long it is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(10);

/// A running controller; it ends when this is dropped.
pub(crate) struct Controller {
    child: Child,
}

/// Resident memory.
pub(crate) struct Memory {
    pub(crate) now: Size,
    pub(crate) peak: Size,
}

/// A size in KiB.
pub(crate) struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{} MiB", self.0 / 1024, self.0 % 1024 * 10 / 1024)
    }
}

impl Controller {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(plane: &ControlPlane) -> Self {
        let [port] = free_ports();
        let log = plane.kubeconfig().with_file_name("controller.log");
        let output = File::create(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_migrations-controller"))
            .args(["--namespace", OPERATOR_NAMESPACE, "--probe-port", &port.to_string()])
            .env("KUBECONFIG", plane.kubeconfig())
            // What a Pod knows of itself: the same replica each time.
            .env("POD_NAME", "load")
            .env("POD_UID", "load")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let controller = Self { child };
        let deadline = Instant::now() + START;
        while !is_ready(port).await {
            assert!(Instant::now() < deadline, "not ready:\n{}", fs::read_to_string(&log).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        controller
    }

    /// Lets it finish what it does.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(SETTLE).await;
    }

    /// What it holds and has held at most.
    pub(crate) fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let size = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            Size(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap())
        };
        Memory { now: size("VmRSS"), peak: size("VmHWM") }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks its readiness probe.
async fn is_ready(port: u16) -> bool {
    let ask = move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer.starts_with("HTTP/1.1 200"))
    };
    tokio::task::spawn_blocking(ask).await.unwrap().unwrap_or(false)
}
