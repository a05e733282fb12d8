//! Starts the controller.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use kube::Client;
use migrations_controller::config::Config;
use migrations_controller::{PARTS, Parts, run};
use migrations_core::snapshot::Policy;
use migrations_process::probes::{Readiness, serve};
use migrations_process::{listen::listen, shutdown::Shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Config { namespace, shared_locks, hide_run_output, probes, telemetry } = Config::parse();
    telemetry.start()?;
    let shutdown = Shutdown::on_signal()?;
    let client = Client::try_default()
        .await
        .context("no way to the API server: neither a service account's files nor a kubeconfig")?;
    let (readiness, [migrators, jobs, gate]) = Readiness::of(PARTS);
    tokio::spawn(serve(listen(probes.probe_port).await?, readiness, Arc::default()));
    let policy = Policy { shared_locks: shared_locks.into_iter().collect(), hide_output: hide_run_output };
    Box::pin(run(client, namespace, policy, Parts { migrators, jobs, gate }, shutdown)).await;
    Ok(())
}
