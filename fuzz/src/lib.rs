//! What must hold for any bytes that come from outside: a function for each way in, which panics where
//! something doesn't hold. libFuzzer calls them with what it makes up (`targets/`), and
//! `crates/webhook/tests/seeds.rs` with the inputs that are kept in `seeds/`.

pub mod admission;
pub mod answer;
pub mod arguments;
pub mod question;
