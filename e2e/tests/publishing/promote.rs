//! `promote`: a version is the images of a commit that passed, once. Signatures are a stand-in's: those of GitHub can't be
//! had without it.

use crate::PROGRAMS;
use crate::registry::Registry;
use crate::script::{Ended, run, script, stand_ins};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SIGNER: &str = "https://github.com/o/r/.github/workflows/ci.yaml@refs/heads/main";

/// Promotes where a program called cosign does `cosign`.
fn promote_if(cosign: &str, registry: &Registry, tag: &str, version: &str) -> Ended {
    let mut promote = script("promote");
    let _programs = stand_ins(&mut promote, &[("cosign", cosign)]);
    run(promote.args([&registry.owner(), tag, version, SIGNER]))
}

fn promote(registry: &Registry, tag: &str, version: &str) -> Ended {
    promote_if("true", registry, tag, version)
}

#[test]
fn a_version_is_the_index_of_its_commit() {
    let registry = Registry::start();
    let pushed = registry.push("sha-1", "one");
    registry.push("sha-2", "two");
    assert_eq!(promote(&registry, "sha-1", VERSION).lines(), pushed);
    assert_eq!(registry.indexes(VERSION), pushed);
}

#[test]
fn a_commit_that_was_never_published_is_not_released() {
    let registry = Registry::start();
    let error = promote(&registry, "sha-1", VERSION).error();
    assert!(error.contains("migrations-controller") && error.contains("has CI published"), "{error}");
    registry.push("sha-2", "two");
    let error = promote(&registry, "sha-1", VERSION).error();
    for program in PROGRAMS {
        assert!(error.contains(&format!("{}:sha-1", registry.image(program))), "{error}");
    }
    assert!(registry.tagged(VERSION).is_empty());
}

#[test]
fn a_commit_that_was_published_in_part_is_not_released() {
    let registry = Registry::start();
    let indexes = registry.push("sha-2", "two");
    run(script("tag").arg("sha-1").args(&indexes[..2])).lines();
    let error = promote(&registry, "sha-1", VERSION).error();
    assert!(error.contains("migrations-waiter:sha-1") && !error.contains("migrations-webhook:"), "{error}");
    assert!(registry.tagged(VERSION).is_empty());
}

#[test]
fn a_version_never_changes() {
    let registry = Registry::start();
    let released = registry.push("sha-1", "one");
    promote(&registry, "sha-1", VERSION).lines();
    registry.push("sha-2", "two");
    let error = promote(&registry, "sha-2", VERSION).error();
    assert!(error.contains("released already, from another commit"), "{error}");
    let error = promote(&registry, "sha-1", VERSION).error();
    assert!(error.contains("is released already, from this commit"), "{error}");
    assert_eq!(registry.indexes(VERSION), released);
}

#[test]
fn a_version_of_one_image_keeps_the_others_from_it() {
    let registry = Registry::start();
    let other = registry.push("sha-1", "one");
    registry.push("sha-2", "two");
    run(script("tag").arg(VERSION).arg(&other[2])).lines();
    let error = promote(&registry, "sha-2", VERSION).error();
    assert!(error.contains(&format!("migrations-waiter:{VERSION}")), "{error}");
    assert_eq!(registry.tagged(VERSION), ["waiter"]);
}

#[test]
fn a_run_that_ended_halfway_is_finished_by_the_next() {
    let registry = Registry::start();
    let pushed = registry.push("sha-1", "one");
    run(script("tag").arg(VERSION).arg(&pushed[0])).lines();
    assert_eq!(promote(&registry, "sha-1", VERSION).lines(), pushed);
    assert_eq!(registry.indexes(VERSION), pushed);
}

/// A version isn't a pattern, and not the beginning of another.
#[test]
fn versions_that_look_alike_are_others() {
    let registry = Registry::start();
    let pushed = registry.push("sha-1", "one");
    for alike in [VERSION.replace('.', "x"), format!("{VERSION}-rc.1")] {
        run(script("tag").arg(alike).args(&pushed)).lines();
    }
    assert_eq!(promote(&registry, "sha-1", VERSION).lines(), pushed);
}

#[test]
fn a_version_that_the_checkout_does_not_have_is_not_released() {
    let registry = Registry::start();
    registry.push("sha-1", "one");
    let error = promote(&registry, "sha-1", "99.0.0").error();
    assert!(error.contains("Cargo.toml isn't of version 99.0.0"), "{error}");
    assert!(registry.tagged("99.0.0").is_empty());
}

#[test]
fn what_ci_has_not_signed_is_not_released() {
    let registry = Registry::start();
    let pushed = registry.push("sha-1", "one");
    // The last is signed by someone else.
    let refuses = r#"case "$*" in *migrations-waiter*) exit 1 ;; esac"#;
    let error = promote_if(refuses, &registry, "sha-1", VERSION).error();
    assert!(error.contains(&format!("{} isn't signed by {SIGNER}", pushed[2])), "{error}");
    assert!(registry.tagged(VERSION).is_empty());
}

#[test]
fn the_signer_is_a_workflow_and_a_branch() {
    let registry = Registry::start();
    let pushed = registry.push("sha-1", "one");
    let ended = promote_if("echo asked: $*", &registry, "sha-1", VERSION);
    for index in pushed {
        let question = format!(
            "asked: verify --certificate-oidc-issuer https://token.actions.githubusercontent.com \
             --certificate-identity {SIGNER} {index}"
        );
        assert!(ended.stderr.lines().any(|line| line == question), "{}", ended.stderr);
    }
}
