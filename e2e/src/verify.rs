//! `cargo verify`: every check of the project, in order, up to the first that fails.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::binaries::Binaries;
use crate::cli::Built;
use crate::environment::{Environment, Prepared};
use crate::lint::Linters;
use crate::progress::{note, seconds};
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
    let (prepared, helm) = thread::scope(|scope| {
        let prepared = scope.spawn(|| Ok((Prepared::get(built)?, binaries::helm()?)));
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
            test.args(["--features", "control-plane"])
                .env("KUBEBUILDER_ASSETS", binaries::test_assets()?)
                .env("HELM", &helm),
        )
    })?;
    match fuzzing::missing() {
        None => report.check("fuzzers", fuzzing::run)?,
        Some(reason) => report.skip("fuzzers", reason),
    }
    report.check("publishing, to a registry on this machine", publish_locally)?;
    match Linters::find_or_fetch() {
        Ok(linters) => {
            report.check("cargo deny check", || {
                let mut deny = cargo(&["deny", "check", "bans", "licenses", "sources"]);
                command::show(linters.given(&mut deny)?)
            })?;
            report.check("lints of the workflows", || linters.check_workflows())?;
        }
        Err(reason) => {
            note(format!("{reason:#}"));
            report.skip("cargo deny check, lints of the workflows", "they can't be had (see above)");
        }
    }
    report.check("the operator's images: size, crates", images::check)?;
    let (evaluated, compared) =
        ("the flake, with a stand-in for nixpkgs", "the flake's images beside cargo's");
    let of_flake = if flake::is_checkable() {
        report.check(evaluated, flake::check)?;
        Some(report.check(compared, flake::check_images)?)
    } else {
        let reason = "there is neither a Nix nor root, who could make /nix";
        report.skip(evaluated, reason);
        report.skip(compared, reason);
        None
    };
    report.check("scenarios on a real cluster", || {
        runner::run(&Environment::up(prepared.or_archives(of_flake))?, &scenarios::all())
    })
}

/// Tests the scripts of `nix/` that take no account anywhere.
fn publish_locally() -> Result<()> {
    let path = command::path_with(Binaries::registry()?.folder())?;
    let mut test =
        cargo(&["test", "--package", "migrations-e2e", "--features", "publishing", "--test", "publishing"]);
    command::show(test.env("PATH", path))
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
