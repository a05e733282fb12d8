//! A waiter's command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use migrations_protocol::{Arguments, Question};

/// The bytes are arguments, one a line. Those that are understood are written back the same, and make
/// a question that the webhook reads.
pub fn check(line: &[u8]) {
    let args = line.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let Ok(arguments) = Arguments::parse(args) else { return };
    // Whatever admission writes is UTF-8: it comes out of JSON.
    if std::str::from_utf8(line).is_ok() {
        assert_eq!(Arguments::parse(arguments.to_args()).expect("what was written"), arguments);
    }
    let question = arguments.question(Some("1".to_owned()));
    let written = serde_json::to_vec(&question).expect("JSON");
    assert_eq!(serde_json::from_slice::<Question>(&written).expect("a question"), question);
}
