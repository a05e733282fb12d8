//! While the API server is away, waiters are told what is recorded already.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Outcome;
use super::playground::{Playground, UNTIL_LET_GO, deployment};
use crate::cluster::Cluster;
use crate::environment::Environment;
use crate::{command, interrupt};

const IMAGE: &str = "migrations-app:v1";

/// The command lines of the programs that are told to stop and go on.
const API_SERVER: &str = "^kube-apiserver ";
const WAITER: &str = "--migrator=shop";
/// That of the application.
const APPLICATION: &str = "^sleep infinity";

/// How long the API server is away at most: after 80 s its kubelet starts it again.
const PATIENCE: Duration = Duration::from_mins(1);

/// A waiter that was away when its release was pushed is started anew, and asks, during an outage.
pub(super) fn run(environment: &Environment) -> Result<Outcome> {
    let playground = Playground::new(environment, "api-server-outage")?;
    playground.gate(UNTIL_LET_GO)?;
    playground.apply(&deployment("web", "shop", IMAGE, 1))?;
    playground.wait(&[
        "pods",
        "--selector",
        "app=shop",
        "--for=jsonpath={.status.initContainerStatuses[0].started}=true",
    ])?;
    playground.migrating()?;

    let cluster = environment.cluster();
    ensure!(running(cluster, APPLICATION)? == 0, "an application runs already");
    signal(cluster, "STOP", WAITER)?;
    playground.let_go()?;
    playground.wait(&["migrator", "shop", &format!("--for=jsonpath={{.status.done[0].key}}={IMAGE}")])?;
    playground.settled()?;

    signal(cluster, "STOP", API_SERVER)?;
    // What was pushed to it meanwhile is lost; its kubelet starts it again.
    let tried = signal(cluster, "KILL", WAITER).and_then(|()| application_starts(cluster));
    signal(cluster, "CONT", API_SERVER)?;
    tried?;
    playground.rolled_out("web")?;
    playground.expect_runs(&[IMAGE])?;
    playground.remove()?;
    Ok(Outcome::Passed)
}

/// Nobody but the node can tell.
fn application_starts(cluster: &Cluster) -> Result<()> {
    let asked = Instant::now();
    while running(cluster, APPLICATION)? == 0 {
        ensure!(asked.elapsed() < PATIENCE, "the Pod did not start while the API server was away");
        ensure!(!interrupt::raised(), "interrupted");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// How many processes of that command line there are on all nodes.
fn running(cluster: &Cluster, command_line: &str) -> Result<usize> {
    let mut all = 0;
    for node in cluster.nodes()? {
        let mut list = cluster.engine().docker();
        // Ends with 1 where there is none.
        list.args(["exec", &node, "sh", "-c", "pgrep --full --count -- \"$1\" || true", "sh", command_line]);
        // `sh` has the command line as well, in the middle of its own.
        let count = command::output(&mut list)?;
        all += count.trim().parse::<usize>().with_context(|| format!("pgrep said {count:?}"))?;
    }
    Ok(all)
}

/// Sends a signal to the processes of that command line, wherever they are.
fn signal(cluster: &Cluster, signal: &str, command_line: &str) -> Result<()> {
    let mut reached = 0;
    for node in cluster.nodes()? {
        let mut send = cluster.engine().docker();
        send.args(["exec", &node, "pkill", &format!("-{signal}"), "--full", "--", command_line]);
        reached += usize::from(command::succeeds(&mut send));
    }
    ensure!(reached == 1, "{command_line:?} was to be found on one node, and was on {reached}");
    Ok(())
}
