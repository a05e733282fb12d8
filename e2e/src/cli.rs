//! The command line: the only place that reads it.

use std::path::PathBuf;

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

    /// Use what was built elsewhere
    #[command(flatten)]
    pub(crate) built: Built,
}

/// What was built elsewhere; without, everything is built here.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Built {
    /// Folder with controller.tar, webhook.tar and waiter.tar, the operator's images as archives
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,

    /// Folder with kind and kubectl; the nodes' image is then the one that this kind asks for, from its registry
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) tools: Option<PathBuf>,
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
    /// Builds the operator's images for every architecture into `target/images`, and starts each program once
    Images,
    /// Runs every check of the project: style, unit, integration, scenarios
    Verify,
}
