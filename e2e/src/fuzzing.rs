//! A bounded run of each fuzzer of `fuzz/`: libFuzzer, steered by the coverage counters that any stable compiler
//! can put in, so that no other toolchain is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use crate::{command, paths};

/// The binaries of `fuzz/`, each with a folder in `fuzz/seeds`.
const TARGETS: [&str; 4] = ["admission", "question", "answer", "arguments"];

/// How long each of them runs, in seconds.
const TIME: u32 = 20;

/// What one input may take, in seconds; the thousandth part is usual.
const INPUT_TIME: u32 = 5;

/// What `cargo fuzz` has the compiler do, but for the sanitizers: all code here is safe.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Why it can't be done here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    (!command::exists("c++")).then_some("libFuzzer needs a C++ compiler, and there is no c++ (Debian: g++)")
}

/// Runs all of them, from the seeds and from what earlier runs on this machine came upon.
pub(crate) fn run() -> Result<()> {
    let binaries = build()?;
    for target in TARGETS {
        run_one(&binaries, target).with_context(|| {
            format!("fuzzer {target} found an input that breaks a rule; add the file that it names to fuzz/seeds/{target}")
        })?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    paths::workspace().join("fuzz")
}

/// Apart from everything else that is built, and for a named machine: build scripts are not instrumented.
fn build() -> Result<PathBuf> {
    let host = host()?;
    let target = paths::workspace().join("target/fuzz");
    let mut build = command::cargo();
    build.args(["build", "--release", "--target", &host, "--target-dir"]).arg(&target);
    build.arg("--manifest-path").arg(folder().join("Cargo.toml")).env("RUSTFLAGS", COVERAGE);
    command::show(&mut build)?;
    Ok(target.join(host).join("release"))
}

fn host() -> Result<String> {
    let version = command::output(Command::new("rustc").arg("-vV").current_dir(paths::workspace()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc doesn't say what it runs on")?.to_owned())
}

fn run_one(binaries: &Path, target: &str) -> Result<()> {
    let found = paths::workspace().join("target/fuzz/corpus").join(target);
    let artifacts = paths::workspace().join("target/fuzz/artifacts").join(target);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).map_err(|error| anyhow!("cannot create {}: {error}", folder.display()))?;
    }
    println!("{target}: {TIME} s");
    let mut fuzzer = Command::new(binaries.join(target));
    fuzzer
        .arg(format!("-max_total_time={TIME}"))
        .arg(format!("-timeout={INPUT_TIME}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-verbosity=0"])
        // The first folder is where new inputs go.
        .args([found, folder().join("seeds").join(target)]);
    command::show(&mut fuzzer)
}
