//! The harness of the end-to-end tests: brings up a real cluster, installs the operator, runs scenarios against it, and
//! leaves the machine as it was.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod binaries;
mod cache;
mod cli;
mod cluster;
mod command;
mod crates;
mod demo;
mod engine;
mod environment;
mod flake;
mod fuzzing;
mod images;
mod interrupt;
mod lint;
mod measure;
mod node_image;
mod packages;
mod paths;
mod prerequisites;
mod progress;
mod runner;
mod scenarios;
mod verify;
mod wiring;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::cli::{Built, Cli, Task};
use crate::environment::{Afterwards, Environment, Prepared};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match interrupt::install().and_then(|()| paths::check()).and_then(|()| run(cli.task, &cli.built)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, built: &Built) -> Result<()> {
    let afterwards = |keep| if keep { Afterwards::Keep } else { Afterwards::Restore };
    match task {
        Task::Up => Environment::around(built, Afterwards::KeepOnSuccess, || up(built)),
        Task::Down => Environment::down(),
        Task::Test { name, keep } => {
            let chosen = runner::choose(&name)?;
            Environment::around(built, afterwards(keep), || {
                let environment = Environment::up(Prepared::get(built)?)?;
                runner::run(&environment, &chosen)
            })
        }
        Task::Demo { keep } => Environment::around(built, afterwards(keep), || {
            let environment = Environment::up(Prepared::get(built)?)?;
            demo::run(&environment, keep)
        }),
        Task::Measure => Environment::around(built, Afterwards::Restore, || {
            let environment = Environment::up(Prepared::get(built)?)?;
            measure::run(&environment)
        }),
        Task::Images => images::cross::build_all(),
        Task::Verify => Environment::around(built, Afterwards::Restore, || verify::run(built)),
    }
}

fn up(built: &Built) -> Result<()> {
    let environment = Environment::up(Prepared::get(built)?)?;
    println!("The cluster is up. To look around:");
    println!("    export KUBECONFIG={}", environment.cluster().kubeconfig().display());
    println!("    cargo e2e test    # runs the scenarios on it");
    println!("    cargo e2e down    # takes it down");
    Ok(())
}
