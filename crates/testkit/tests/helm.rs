//! What users install: `install.yaml` and the Helm chart, as `nix/render.sh` makes them for a release. The chart
//! renders what kustomize does, and a real API server takes both.
//!
//! That server's dry run is the check against the schema of every kind: with `--validate=strict` it refuses fields
//! that are unknown or doubled, on top of what it validates anyway.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends with a panic")]

#[path = "helm/installed.rs"]
mod installed;
#[path = "helm/programs.rs"]
mod programs;
#[path = "helm/rendered.rs"]
mod rendered;
