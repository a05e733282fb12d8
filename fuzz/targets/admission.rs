//! Any bytes sent to admission.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| migrations_fuzz::admission::check(bytes));
