//! What a run looks like (contract §4): a snapshot of the Job of one Pod of every kind, and a row for
//! each rule.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test ends with a panic; cases read best by value"
)]

#[cfg(test)]
mod world;

#[cfg(test)]
mod job {
    pub(crate) mod fixture;

    mod claims;
    mod containers;
    mod identity;
    mod kinds;
    mod placement;
    mod pod;
    mod volumes;
}
