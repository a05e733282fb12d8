//! Every decision of the operator, as pure functions over plain data: what matches, what is due,
//! what the run looks like, what the status says, what admission adds to a Pod and what a waiter is
//! told. No clock, I/O or randomness: time comes in as an argument, effects go out as values.

pub mod answer;
pub mod certificates;
pub mod decide;
pub mod due;
pub mod entries;
pub mod inject;
pub mod job;
pub mod lease;
pub mod plan;
pub mod released;
pub mod result;
pub mod revision;
pub mod selector;
pub mod snapshot;
pub mod status;
pub mod survey;
pub mod validate;
pub mod workload;
