//! `cargo verify`: every check of the project, in order, up to the first that fails.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::cli::Built;
use crate::environment::{Environment, Prepared};
use crate::progress::seconds;
use crate::{binaries, command, flake, fuzzing, images, interrupt, runner, scenarios};

/// Runs all checks.
pub(crate) fn run(built: &Built) -> Result<()> {
    let mut report = Report::default();
    let outcome = checks(built, &mut report);
    report.print();
    outcome
}

fn checks(built: &Built, report: &mut Report) -> Result<()> {
    // What the later checks need is downloaded and built while the earlier ones run.
    let prepared = thread::scope(|scope| {
        let prepared = scope.spawn(|| Prepared::get(built));
        let checked = quick_checks(report);
        if checked.is_err() {
            interrupt::raise();
        }
        let prepared = prepared.join().unwrap_or_else(|_| Err(anyhow!("the preparation panicked")));
        checked.and_then(|()| report.check("preparing a cluster's parts", || prepared))
    })?;

    report.check("integration tests against a real control plane", || {
        let mut test = cargo(&[
            "test",
            "--package",
            "migrations-controller",
            "--package",
            "migrations-webhook",
            "--package",
            "migrations-testkit",
        ]);
        command::show(
            test.args(["--features", "control-plane"]).env("KUBEBUILDER_ASSETS", binaries::test_assets()?),
        )
    })?;
    match fuzzing::missing() {
        None => report.check("fuzzers", fuzzing::run)?,
        Some(reason) => report.skip("fuzzers", reason),
    }
    if command::succeeds(&mut cargo(&["deny", "--version"])) {
        report.check("cargo deny check", || {
            command::show(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))
        })?;
    } else {
        report.skip("cargo deny check", "cargo-deny is not installed (cargo install --locked cargo-deny)");
    }
    report.check("the operator's images: size, crates", images::check)?;
    let (evaluated, of_flake) =
        ("the flake, with a stand-in for nixpkgs", "the flake's images beside cargo's");
    if flake::is_checkable() {
        report.check(evaluated, flake::check)?;
        report.check(of_flake, flake::check_images)?;
    } else {
        let reason = "there is neither a Nix nor root, who could make /nix";
        report.skip(evaluated, reason);
        report.skip(of_flake, reason);
    }
    report
        .check("scenarios on a real cluster", || runner::run(&Environment::up(prepared)?, &scenarios::all()))
}

fn quick_checks(report: &mut Report) -> Result<()> {
    report.check("cargo fmt", || command::show(&mut cargo(&["fmt", "--all", "--check"])))?;
    report.check("cargo clippy", || {
        let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--all-features"]);
        command::show(clippy.args(["--", "--deny", "warnings"]))
    })?;
    report.check("unit, property and process tests", || command::show(&mut cargo(&["test", "--workspace"])))
}

fn cargo(args: &[&str]) -> Command {
    let mut command = command::cargo();
    command.args(args);
    command
}

/// What was checked so far, and how it ended.
#[derive(Default)]
struct Report(Vec<(String, Ending)>);

enum Ending {
    Passed(Duration),
    Failed(Duration),
    Skipped(&'static str),
}

impl Report {
    fn check<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = work();
        let took = started.elapsed();
        let ending = if outcome.is_ok() { Ending::Passed(took) } else { Ending::Failed(took) };
        self.0.push((name.to_owned(), ending));
        outcome.map_err(|error| error.context(format!("{name} failed")))
    }

    fn skip(&mut self, name: &str, reason: &'static str) {
        println!("\n== {name}\nskipped: {reason}");
        self.0.push((name.to_owned(), Ending::Skipped(reason)));
    }

    fn print(&self) {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        println!("\n== summary");
        for (name, ending) in &self.0 {
            match ending {
                Ending::Passed(took) => println!("{name:width$}  passed   {}", seconds(*took)),
                Ending::Failed(took) => println!("{name:width$}  FAILED   {}", seconds(*took)),
                Ending::Skipped(reason) => println!("{name:width$}  skipped  {reason}"),
            }
        }
    }
}
