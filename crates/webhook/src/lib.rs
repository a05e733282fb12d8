//! The webhook: injects a waiter into each new Pod that a Migrator selects, and answers the waiters
//! from its watch of the Migrators' status. All replicas serve, none leads. It writes no object, and
//! asks the API server nothing while it admits a Pod; about a waiter's token it does.

pub mod admission;
pub mod config;
mod follow;
pub mod question;
mod run;
pub mod serving;
pub mod settings;
pub mod tokens;
pub mod view;

pub use run::{RunError, run, run_with};
