//! Which crate may know which (ARCHITECTURE.md): an arrow that isn't here is a bug.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand};

const ALLOWED: [(&str, &[&str]); 9] = [
    ("migrations-api", &[]),
    ("migrations-protocol", &[]),
    ("migrations-process", &[]),
    ("migrations-core", &["migrations-api", "migrations-protocol"]),
    ("migrations-controller", &["migrations-api", "migrations-core", "migrations-process"]),
    (
        "migrations-webhook",
        &["migrations-api", "migrations-core", "migrations-process", "migrations-protocol"],
    ),
    ("migrations-waiter", &["migrations-protocol"]),
    ("migrations-testkit", &["migrations-api"]),
    ("migrations-e2e", &["migrations-api", "migrations-protocol"]),
];

#[test]
fn crates_know_only_those_they_may() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let crates: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    assert_eq!(crates, ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect(), "a crate without a row");
    for package in &metadata.packages {
        let (_, allowed) = ALLOWED.iter().find(|(name, _)| *package.name == **name).unwrap();
        for dependency in &package.dependencies {
            let ours = crates.contains(&dependency.name);
            let testing =
                dependency.kind == DependencyKind::Development && dependency.name == "migrations-testkit";
            assert!(
                !ours || testing || allowed.contains(&dependency.name.as_str()),
                "{} must not know {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// Whoever runs it needs neither a Kubernetes client nor a runtime.
#[test]
fn the_waiter_stays_small() {
    let metadata = MetadataCommand::new().exec().unwrap();
    let resolve = metadata.resolve.as_ref().unwrap();
    let name_of = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    let mut reached = BTreeSet::new();
    let mut left: Vec<_> =
        resolve.nodes.iter().filter(|node| name_of(&node.id) == "migrations-waiter").collect();
    while let Some(node) = left.pop() {
        for dependency in &node.deps {
            let shipped = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if shipped && reached.insert(name_of(&dependency.pkg)) {
                left.extend(resolve.nodes.iter().filter(|node| node.id == dependency.pkg));
            }
        }
    }
    for heavy in ["kube", "k8s-openapi", "tokio", "hyper", "clap", "tracing"] {
        assert!(!reached.contains(heavy), "the waiter depends on {heavy}");
    }
}
