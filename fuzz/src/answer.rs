//! An answer, as a waiter reads it.

use migrations_protocol::{Answer, Verdict};
use serde_json::Value;

/// Nothing but the one word releases a Pod, and what is read is what would be written.
pub fn check(body: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return };
    // A field that nobody reads may hold what is no text.
    let raw = serde_json::from_slice::<Value>(body);
    if let (Verdict::Released, Ok(raw)) = (answer.verdict, raw) {
        assert!(raw.to_string().contains("\"Released\""), "released by {raw}");
    }
    let written = serde_json::to_vec(&answer).expect("JSON");
    assert_eq!(serde_json::from_slice::<Answer>(&written).expect("an answer"), answer);
}
