//! The webhook's listeners in a process of their own, so that what they use is theirs alone. Its
//! first line of input is its certificate, each further one a Migrator for its view; each is
//! answered with a line on standard error. Logs go where they do in a Pod, and are thrown away.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use kube::core::DeserializeGuard;
use migrations_api::Migrator;
use migrations_core::inject::{Resources, UnsupportedPods};
use migrations_process::open_files;
use migrations_process::shutdown::Shutdown;
use migrations_process::telemetry::Telemetry;
use migrations_process::tls::Certificate;
use migrations_testkit::recording::RecordingServer;
use migrations_webhook::admission::Admission;
use migrations_webhook::held::Held;
use migrations_webhook::metrics::Metrics;
use migrations_webhook::question::Questions;
use migrations_webhook::serving::serve_both;
use migrations_webhook::settings::InForce;
use migrations_webhook::tokens::Tokens;
use migrations_webhook::turns::Turns;
use migrations_webhook::view::View;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::objects;

/// The argument that makes this program the server.
pub(crate) const ROLE: &str = "serve";

/// What Linux counts processor time in.
const TICK: Duration = Duration::from_millis(10);

/// The first line of input.
#[derive(Serialize, Deserialize)]
struct Setup {
    chain: String,
    key: String,
    waiters: usize,
}

/// The server as the load generator has it.
pub(crate) struct Server {
    /// What its certificate is signed by.
    pub(crate) authority: String,
    /// Port of admission reviews.
    pub(crate) admission: u16,
    /// Port of questions.
    pub(crate) question: u16,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStderr>,
}

impl Server {
    /// Starts it; `waiters` may hold a question.
    pub(crate) fn start(waiters: usize) -> Self {
        let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (generated.cert.pem(), generated.signing_key.serialize_pem());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(ROLE)
            // As the manifests have it.
            .env("MIMALLOC_ALLOW_THP", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
        let mut server = Self { authority: chain.clone(), admission: 0, question: 0, child, input, output };
        let ports = server.tell(&Setup { chain, key, waiters });
        (server.admission, server.question) = serde_json::from_str(&ports).unwrap();
        server
    }

    /// Puts Migrators into its view, the `matching` first of which select the reviewed Pod.
    pub(crate) fn fill(&mut self, migrators: usize, matching: usize, namespaces: usize) {
        for index in 0..migrators {
            self.tell(&objects::migrator(index, matching, namespaces));
        }
    }

    /// Sends a line; returns its answer.
    pub(crate) fn tell(&mut self, line: &impl Serialize) -> String {
        writeln!(self.input, "{}", serde_json::to_string(line).unwrap()).unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer
    }

    /// The processor time it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // Fields 14 and 15 of proc(5), counted from behind the name, which may hold anything.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        TICK * fields.skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum()
    }

    /// Its resident memory.
    pub(crate) fn resident_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Logs as the webhook does.
#[derive(Parser)]
struct Logs {
    #[command(flatten)]
    telemetry: Telemetry,
}

/// Is the server, with the runtime that the webhook has.
pub(crate) fn serve() {
    open_files::allow_as_many_as_possible();
    Logs::parse_from(["server"]).telemetry.start().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let setup: Setup = serde_json::from_str(&lines.next().unwrap()).unwrap();
    let (view, certificate) = (View::default(), Certificate::default());
    certificate.replace(setup.chain.as_bytes(), setup.key.as_bytes()).unwrap();
    let resources = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
    let image = "registry.example.com/waiter:1".to_owned();
    let unsupported = UnsupportedPods::default();
    let settings = InForce::new("migrations-operator", image, resources, unsupported, None);
    let (_trigger, end) = Shutdown::by_hand();
    let metrics = Metrics::default();
    let turns = Turns::default();
    let admission = Admission { view: view.clone(), settings, turns, metrics: metrics.clone() };
    let api = runtime.block_on(async { RecordingServer::new() });
    for pod in 0..=objects::pod_of(setup.waiters) {
        api.know_token(&objects::token(pod), objects::token_status(pod));
    }
    let tokens = runtime.block_on(async { Tokens::new(api.client(), metrics.clone()) });
    let question = Questions { view: view.clone(), tokens, held: Held::default(), end: end.clone(), metrics };
    let bind = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (admissions, questions) = (bind(), bind());
    let ports = [&admissions, &questions].map(|listener| listener.local_addr().unwrap().port());
    runtime.spawn(async move {
        serve_both(&certificate, &end, setup.waiters, (admissions, admission), (questions, question))
            .await
            .unwrap();
    });
    eprintln!("{}", Value::from(ports.to_vec()));
    for line in lines {
        let object: DeserializeGuard<Migrator> = serde_json::from_str(&line).unwrap();
        view.apply(object);
        eprintln!("applied");
    }
}
