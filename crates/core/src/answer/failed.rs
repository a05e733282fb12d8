//! What a waiter is told of a run of its own key that failed, or that nobody saw end.

use migrations_api::{Migrator, Reason, RunRecord, names};
use migrations_protocol::Question;

use super::{Told, look_at};
use crate::due::next_attempt;
use crate::result::last_bytes;
use crate::validate::attempts_after_the_first;

/// Most of a run's output that an answer repeats, in bytes.
pub(super) const OUTPUT: usize = 4096;

/// The run of the Pod's key failed: whether and when it is tried again, and its last output.
pub(super) fn failed(question: &Question, record: &RunRecord, migrator: &Migrator) -> Told {
    let RunRecord { key, job, attempts, finished, message, .. } = record;
    let limit = attempts_after_the_first(migrator.spec.backoff_limit);
    let (reason, next) = match next_attempt(record, limit) {
        _ if migrator.spec.suspend == Some(true) => {
            (Reason::Suspended, "no attempt starts while spec.suspend is true".to_owned())
        }
        Some(at) => (Reason::BackOff, format!("the next attempt is due at {at:.0}")),
        None => (
            Reason::MigrationFailed,
            format!(
                "it is not tried again by itself; roll out what mends it, or set the Migrator's annotation {} to a \
                 new value",
                names::RUN_ANNOTATION
            ),
        ),
    };
    let mut told = format!(
        "waits for the migrations of {key}, which failed in Job {job} (attempt {attempts} of {}, at {:.0}); {next}; {}",
        limit.saturating_add(1),
        finished.0,
        look_at(question)
    );
    append_output(&mut told, message);
    Told::wait(reason.as_str(), told)
}

/// Nobody saw how the run of the Pod's key ended.
pub(super) fn unknown(question: &Question, record: &RunRecord) -> Told {
    let RunRecord { key, job, attempts, finished, message, .. } = record;
    let why = if message.is_empty() { String::new() } else { format!(" ({})", last_bytes(message, OUTPUT)) };
    Told::wait(
        Reason::ResultUnknown.as_str(),
        format!(
            "waits for the migrations of {key}: nobody saw how Job {job} ended{why} (attempt {attempts}, at {:.0}), so \
             it is not run again by itself; look at the database, then set the Migrator's annotation {} to a new value \
             to run it again, or {} to {key} if it is complete; {}",
            finished.0,
            names::RUN_ANNOTATION,
            names::DONE_ANNOTATION,
            look_at(question)
        ),
    )
}

/// Adds the end of what a run said last.
pub(super) fn append_output(told: &mut String, message: &str) {
    if !message.is_empty() {
        told.push_str("\nits last output:\n");
        told.push_str(last_bytes(message.trim_end(), OUTPUT));
    }
}
