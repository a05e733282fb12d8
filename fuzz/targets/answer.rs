//! Any bytes sent to a waiter as an answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| migrations_fuzz::answer::check(bytes));
