//! Starts the controller.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use migrations_controller::config::Config;
use migrations_controller::{PARTS, Parts, connect, run};
use migrations_process::probes::{Readiness, serve};
use migrations_process::{listen::listen, shutdown::Shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Config { namespace, probes, telemetry } = Config::parse();
    telemetry.start()?;
    let shutdown = Shutdown::on_signal()?;
    let reach = kube::Config::infer()
        .await
        .context("no way to the API server: neither a service account's files nor a kubeconfig")?;
    let client = connect::client(reach).context("the way to the API server can't be taken")?;
    let (readiness, [migrators, jobs, gate]) = Readiness::of(PARTS);
    tokio::spawn(serve(listen(probes.probe_port).await?, readiness, Arc::default()));
    Box::pin(run(client, namespace, Parts { migrators, jobs, gate }, shutdown)).await;
    Ok(())
}
