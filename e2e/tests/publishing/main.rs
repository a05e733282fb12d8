//! The scripts that publish (`nix/*.sh`), against a registry on this machine, and the workflows that run them. What only
//! GitHub can show is left out: its own registry, and signatures.
//!
//! Needs crane in `PATH`; `cargo verify` brings it along.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

mod archive;
mod promote;
mod pull;
mod push;
mod registry;
mod script;
mod sign;
mod workflows;

/// The operator's images, in the order that scripts go through them.
const PROGRAMS: [&str; 3] = ["controller", "webhook", "waiter"];
