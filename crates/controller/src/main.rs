//! Starts the controller.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use migrations_controller::config::Config;
use migrations_controller::metrics::Metrics;
use migrations_controller::{PARTS, Parts, connect, run};
use migrations_core::snapshot::Policy;
use migrations_process::probes::{Readiness, serve};
use migrations_process::{listen::listen, shutdown::Shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Config { namespace, pod_name, pod_uid, shared_locks, hide_run_output, probes, telemetry } =
        Config::parse();
    telemetry.start()?;
    let shutdown = Shutdown::on_signal()?;
    let reach = kube::Config::infer()
        .await
        .context("no way to the API server: neither a service account's files nor a kubeconfig")?;
    let client = connect::client(reach).context("the way to the API server can't be taken")?;
    let (readiness, [lease, migrators, jobs, gate]) = Readiness::of(PARTS);
    let metrics = Metrics::default();
    tokio::spawn(serve(listen(probes.probe_port).await?, readiness, Arc::new(metrics.registry())));
    let parts = Parts { lease, migrators, jobs, gate };
    // Another Pod of the same name is another replica.
    let identity = format!("{pod_name}_{pod_uid}");
    let policy = Policy { shared_locks: shared_locks.into_iter().collect(), hide_output: hide_run_output };
    Box::pin(run(client, namespace, identity, policy, parts, metrics, shutdown)).await;
    Ok(())
}
