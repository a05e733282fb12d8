//! Any bytes sent as a question.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| migrations_fuzz::question::check(bytes));
