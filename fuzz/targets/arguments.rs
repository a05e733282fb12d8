//! Any command line given to a waiter.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| migrations_fuzz::arguments::check(bytes));
