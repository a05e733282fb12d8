//! What the fuzzers of `fuzz/` start from, and what they have found, through the same functions: no
//! input that once went wrong goes wrong again.

#![allow(missing_docs, unreachable_pub, reason = "the functions are those of another crate")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[rstest]
#[case::admission("admission", fuzz::admission::check)]
#[case::question("question", fuzz::question::check)]
#[case::answer("answer", fuzz::answer::check)]
#[case::arguments("arguments", fuzz::arguments::check)]
fn every_seed_still_passes(#[case] target: &str, #[case] check: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for (path, bytes) in seeds {
        // Shown where it fails.
        println!("{}", path.display());
        check(&bytes);
        // What comes in pieces ends anywhere.
        for end in 0..bytes.len().min(512) {
            check(&bytes[..end]);
        }
    }
}

/// Those that are made for it do arrive where a Pod is patched: else the fuzzer would start outside.
#[test]
fn the_seeds_reach_the_patch() {
    for name in
        ["deployment", "stateful-set", "host-network", "old-waiter", "several", "required-and-selected"]
    {
        let body = fs::read(folder("admission").join(name)).unwrap();
        assert!(fuzz::admission::patches(&body), "{name} isn't patched");
    }
}
