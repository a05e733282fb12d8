//! What one waiter costs, measured on the program as it is shipped:
//!
//! ```sh
//! cargo build -p migrations-waiter --profile waiter --target x86_64-unknown-linux-musl
//! cargo bench -p migrations-waiter --bench waiting -- PATH_OF_THAT_WAITER
//! ```
//!
//! starts it against a TLS server on the loopback and prints its size, the time and processor time
//! until its first question, what it holds and uses in 30 s of waiting, and how long after the
//! release it has ended. Where cgroups may be made, also the first question under the CPU limit that
//! the webhook gives it. docs/performance.md says what it gave.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for people")]

#[path = "../tests/server/mod.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use migrations_protocol::{Answer, Arguments, CA_FILE, Container, HOLD_SECONDS, TOKEN_FILE, Verdict};
use server::{Authority, Reply, Server};

const SERVER_NAME: &str = "migrations-webhook.migrations-operator.svc";
const STARTS: usize = 50;
const RELEASES: usize = 100;
const WAIT: Duration = Duration::from_secs(30);

/// The processor time that a waiter is limited to: 100m.
const LIMIT: (&str, &str) = ("10000", "100000");

fn main() {
    let waiter = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let waiter = waiter.map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_migrations-waiter")), PathBuf::from);
    println!("binary                          {:.2} MB", megabytes(fs::metadata(&waiter).unwrap().len()));
    let bench = Bench::new(waiter);
    bench.first_question("first question", None);
    if let Some(limit) = Limit::new() {
        bench.first_question("first question at 100m", Some(&limit));
    } else {
        println!("first question at 100m          not measured: no cgroup can be made here");
    }
    bench.waiting();
    bench.release();
}

/// A server that holds every question but the first, until it is told to release.
struct Bench {
    waiter: PathBuf,
    directory: tempfile::TempDir,
    _server: Server,
    address: String,
    asked: Mutex<Receiver<(Instant, bool)>>,
    release: Sender<()>,
}

impl Bench {
    fn new(waiter: PathBuf) -> Self {
        let authority = Authority::new();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(CA_FILE), authority.bundle()).unwrap();
        fs::write(directory.path().join(TOKEN_FILE), "token").unwrap();
        let (ask, asked) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let released = Arc::new(Mutex::new(released));
        let server = Server::start(&authority, SERVER_NAME, move |question| {
            let _ = ask.send((Instant::now(), question.seen.is_some()));
            let verdict = match question.seen {
                Some(_)
                    if released.lock().unwrap().recv_timeout(Duration::from_secs(HOLD_SECONDS)).is_ok() =>
                {
                    Verdict::Released
                }
                _ => Verdict::Wait,
            };
            Reply::Answer(Answer {
                verdict,
                reason: "Running".to_owned(),
                message: "waits for the migrations of shop:2".to_owned(),
                version: format!("{verdict:?}"),
            })
        });
        let address = server.address();
        Self { waiter, directory, _server: server, address, asked: Mutex::new(asked), release }
    }

    fn start(&self, limit: Option<&Limit>) -> Child {
        let arguments = Arguments {
            namespace: "default".to_owned(),
            migrator: "shop".to_owned(),
            containers: vec![Container { name: "app".to_owned(), image: "shop:2".to_owned() }],
            revision: Some("6b4e-6d4c/5f6b".to_owned()),
            follower: false,
            labels: BTreeMap::new(),
            servers: vec![self.address.clone()],
            server_name: SERVER_NAME.to_owned(),
            files: self.directory.path().to_owned(),
            timeout: None,
        };
        let mut command = match limit {
            None => Command::new(&self.waiter),
            Some(Limit(folder)) => {
                let mut shell = Command::new("sh");
                let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", folder.display());
                shell.args(["-c", &script, "sh"]).arg(&self.waiter);
                shell
            }
        };
        command.args(arguments.to_args()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Waits for the next question: when it came, and whether it is one that is held.
    fn question(&self) -> (Instant, bool) {
        self.asked.lock().unwrap().recv_timeout(WAIT).unwrap()
    }

    fn held(&self) {
        while !self.question().1 {}
    }

    fn end(&self, mut waiter: Child) -> Duration {
        let released = Instant::now();
        self.release.send(()).unwrap();
        assert!(waiter.wait().unwrap().success());
        released.elapsed()
    }

    fn first_question(&self, title: &str, limit: Option<&Limit>) {
        let (mut times, mut used) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let started = Instant::now();
            let waiter = self.start(limit);
            let (came, _) = self.question();
            used.push(processor_time(waiter.id()));
            times.push(came - started);
            self.held();
            self.end(waiter);
        }
        println!("{title:<32}{}; processor time {}", spread(times), spread(used));
    }

    fn waiting(&self) {
        let waiter = self.start(None);
        self.held();
        // Its start is over when its question is held.
        thread::sleep(Duration::from_millis(200));
        let before = processor_time(waiter.id());
        thread::sleep(WAIT);
        let used = processor_time(waiter.id()).saturating_sub(before);
        let title = format!("used in {WAIT:?} of waiting");
        println!("{title:<32}{:.2} ms of processor time", milliseconds(used));
        let status = fs::read_to_string(format!("/proc/{}/status", waiter.id())).unwrap();
        for field in ["VmRSS", "VmHWM", "RssAnon", "RssFile", "Threads"] {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            println!("{field:<32}{}", line.split(':').nth(1).unwrap().trim());
        }
        self.end(waiter);
    }

    fn release(&self) {
        let times = (0..RELEASES).map(|_| {
            let waiter = self.start(None);
            self.held();
            // The answer before it was new: the question that is held is the next one.
            thread::sleep(Duration::from_millis(20));
            self.end(waiter)
        });
        println!("{:<32}{}", "from the release to its end", spread(times.collect()));
    }
}

/// A cgroup with the CPU limit of a waiter.
struct Limit(PathBuf);

impl Limit {
    fn new() -> Option<Self> {
        let name = format!("migrations-waiter-{}", std::process::id());
        let (quota, period) = LIMIT;
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"] {
            let folder = Path::new(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let limit = Self(folder);
            let as_of_two = fs::write(limit.0.join("cpu.max"), format!("{quota} {period}"));
            let as_of_one = || fs::write(limit.0.join("cpu.cfs_quota_us"), quota);
            if as_of_two.or_else(|_| as_of_one()).is_ok() {
                return Some(limit);
            }
        }
        None
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What is left is an empty group.
        let _ = fs::remove_dir(&self.0);
    }
}

/// Processor time that a process has used, its threads included.
fn processor_time(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let of_thread = |folder: PathBuf| -> Option<u64> {
        fs::read_to_string(folder.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.filter_map(|thread| of_thread(thread.path())).sum())
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| milliseconds(times[(times.len() - 1) * part / 100]);
    format!("p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms", at(50), at(99), at(100))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "for a person")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
