//! The webhook: injects a waiter into each new Pod that a Migrator selects, and answers the waiters
//! from its watch of the Migrators' status. All replicas serve, none leads. It writes no object, and
//! asks the API server nothing while it admits a Pod; about a waiter's token it does.

pub mod admission;
pub mod config;
mod follow;
pub mod held;
pub mod metrics;
pub mod question;
mod review;
mod run;
pub mod serving;
pub mod settings;
pub mod tokens;
pub mod turns;
pub mod view;

pub use run::{RunError, run, run_with};

/// Requests make and drop hundreds of small values; musl's allocator, which static programs come
/// with, takes memory from the system and gives it back for many of them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
