//! The command line: the only place that reads it and the environment.

use clap::Parser;
use migrations_api::names;
use migrations_process::probes::Probes;
use migrations_process::telemetry::Telemetry;

/// Watches Migrators and the Pods they select, runs their migrations, and keeps the gate in place.
#[derive(Clone, Debug, Parser)]
#[command(name = "migrations-controller", version)]
pub struct Config {
    /// Namespace of the operator's own Secrets, Service and leases
    #[arg(long, env = "POD_NAMESPACE", default_value = names::OPERATOR_NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,

    /// Name of this Pod; with its uid it names this replica among those that may lead
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,

    /// Uid of this Pod
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: String,

    /// Name of a lock that holds for Migrators of all namespaces; may be given several times. Others
    /// hold within the namespace of the Migrators that name them
    #[arg(long = "shared-lock", env = "SHARED_LOCKS", value_delimiter = ',', value_name = "NAME")]
    pub shared_locks: Vec<String>,

    /// Keep the output of failed runs out of statuses, events and the logs of waiting Pods: it may
    /// hold secrets. It stays in the log of the run's own Pod
    #[arg(long, env = "HIDE_RUN_OUTPUT")]
    pub hide_run_output: bool,

    /// Where probes and metrics are served
    #[command(flatten)]
    pub probes: Probes,

    /// How to log
    #[command(flatten)]
    pub telemetry: Telemetry,
}
