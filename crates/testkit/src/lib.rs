//! What tests are made of: objects that read as sentences ([`builders`]), an API server that
//! records and fails on command (`recording`), a real control plane without nodes (`cluster`), and
//! the shipped manifests (`manifests`). All but the first come with the feature `cluster`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "only tests call this crate, and a test ends with a panic"
)]

pub mod builders;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod manifests;
#[cfg(feature = "cluster")]
pub mod recording;
