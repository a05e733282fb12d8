//! Runs scenarios one after another on one environment and counts how they ended.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::environment::Environment;
use crate::interrupt;
use crate::progress::{Step, seconds};
use crate::scenarios::{self, Outcome, Scenario};

/// The scenarios whose name contains `filter`.
pub(crate) fn choose(filter: &str) -> Result<Vec<Scenario>> {
    let (chosen, others): (Vec<_>, Vec<_>) =
        scenarios::all().into_iter().partition(|scenario| scenario.name.contains(filter));
    let names: Vec<_> = others.iter().map(|scenario| scenario.name).collect();
    ensure!(!chosen.is_empty(), "no scenario is called like {filter:?}; there are: {}", names.join(", "));
    Ok(chosen)
}

/// Runs the scenarios and says how each ended.
pub(crate) fn run(environment: &Environment, chosen: &[Scenario]) -> Result<()> {
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for scenario in chosen {
        let started = Instant::now();
        let step = Step::start(format!("scenario {}", scenario.name));
        let outcome = (scenario.run)(environment);
        drop(step);
        let took = seconds(started.elapsed());
        match outcome {
            Ok(Outcome::Passed) => {
                passed += 1;
                println!("scenario {} ... ok ({took})", scenario.name);
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                println!("scenario {} ... skipped: {reason}", scenario.name);
            }
            Err(error) => {
                println!("scenario {} ... FAILED ({took})\n    {error:#}", scenario.name);
                failed.push(scenario.name);
                if !interrupt::raised() {
                    environment.explain();
                }
            }
        }
        if interrupt::raised() {
            break;
        }
    }
    let tail = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    println!("{passed} passed, {} failed{tail}", failed.len());
    ensure!(failed.is_empty(), "failed: {} (again: `cargo e2e test NAME`)", failed.join(", "));
    ensure!(!interrupt::raised(), "interrupted");
    Ok(())
}
