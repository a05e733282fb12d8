//! The webhook's two listeners over real TLS, fed by the test instead of by watches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends with a panic")]

mod admission;
mod crowd;
mod question;
mod shell;
