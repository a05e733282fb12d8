//! The command line: the only place that reads it.

use clap::{Parser, Subcommand};

/// Tries migrations-operator on a real Kubernetes cluster on this machine.
///
/// Needs Rust and Go. Where `docker info` answers, that engine is used; else, as root on Debian, a private one is
/// installed and started, and stopped at the end. What is built once is kept in
/// `${XDG_CACHE_HOME:-~/.cache}/migrations-operator`.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e", version)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) task: Task,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Brings a cluster with the operator up, or up to date, and leaves it up
    Up,
    /// Takes the cluster down and leaves nothing of it running
    Down,
    /// Runs the scenarios
    Test {
        /// Only scenarios whose name contains this
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
        /// Leave the cluster up, also after a failure
        #[arg(long)]
        keep: bool,
    },
    /// Shows the operator at work on a small application
    Demo {
        /// Leave the cluster and the application up
        #[arg(long)]
        keep: bool,
    },
    /// Measures the gate's own share of a rollout
    Measure,
    /// Runs every check of the project: style, unit, integration, scenarios
    Verify,
}
