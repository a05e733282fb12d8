//! Whose questions are answered: the webhook, with the rights that the manifests give it, against a real
//! API server and its own tokens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

mod forgery;
mod outage;
mod proxy;
mod refusals;
mod secrecy;
mod webhook;
