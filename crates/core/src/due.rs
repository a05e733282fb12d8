//! Which keys are due, which Pods a run of each may be cloned from (contract §3), and whether an
//! attempt may start now (contract §5).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use migrations_api::{DoneKey, MigratorStatus, RunRecord, RunResult};
use serde_json::Value;

use crate::job;
use crate::survey::{Member, Survey};
use crate::validate::Valid;

/// Pause before the second attempt; it doubles from one to the next (contract §5).
const FIRST_PAUSE: Duration = Duration::from_secs(10);

/// Longest pause between two attempts (contract §5).
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A key that a run is due for.
#[derive(Clone, Debug)]
pub struct Due<'a> {
    /// The key.
    pub key: &'a str,
    /// Pods that the run may be cloned from, one of each workload, the best first.
    pub candidates: Vec<&'a Member<'a>>,
    /// Whether Pods wait for it; else it is run once more, for whoever asked for that.
    pub held: bool,
    /// Since when there are Pods of it.
    since: Option<Timestamp>,
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// The Pod that led to it.
    pub source: &'a Member<'a>,
    /// Hash of the run's spec and template.
    pub run_hash: String,
}

/// Keys that are due, those that Pods wait for first, the oldest Pod's before the others. A key is
/// due when a live Pod of its workload's current revision exists and the key isn't done; or, while a
/// run is `requested`, also when it is.
pub fn due<'a>(survey: &'a Survey<'a>, done: &[DoneKey], requested: bool) -> Vec<Due<'a>> {
    let mut keys: BTreeMap<&str, Vec<&Member<'_>>> = BTreeMap::new();
    for member in survey.members.iter().filter(|member| member.current() && member.leads) {
        keys.entry(&member.origin.key).or_default().push(member);
    }
    let mut due: Vec<_> = keys
        .into_iter()
        .filter_map(|(key, mut members)| {
            let record = done.iter().find(|one| one.key == key);
            // A revision that is tied to a done key is done, whatever its template says by now.
            let held = record.is_none() && !members.iter().all(|member| member.released(done));
            if !held && !requested && !record.is_some_and(|record| record.rerun) {
                return None;
            }
            let since = members.iter().filter_map(|member| member.pod.created).min();
            members.sort_by_key(|member| {
                // Kinds that serve know the application's whole configuration best, new Pods its
                // latest; the name only settles what is equal otherwise.
                (!member.origin.long_running(), Reverse(member.pod.created), &member.pod.name)
            });
            let mut workloads = BTreeSet::new();
            members.retain(|member| workloads.insert(&member.origin.reference));
            Some(Due { key, candidates: members, held, since })
        })
        .collect();
    due.sort_by_key(|due| (!due.held, due.since, due.key));
    due
}

impl<'a> Due<'a> {
    /// The source of the next attempt. Attempts at a key go on with the template that the last one
    /// had, for as long as there is one like it, and with its workload (contract §3): of two workloads
    /// with one image, a failure of the one must not be forgotten over the other. `request` is part of
    /// the hash.
    pub fn choose(
        &self,
        valid: &Valid,
        status: &MigratorStatus,
        request: Option<&str>,
    ) -> Option<Choice<'a>> {
        let newest = status.history.iter().find(|record| record.key == self.key);
        let before = status.source.as_ref().and_then(|source| source.uid.as_ref());
        let choices = self.candidates.iter().filter_map(|source| {
            let run_hash = job::run_hash(valid, source.origin.template?, request);
            Some(Choice { source, run_hash })
        });
        choices.min_by_key(|choice| {
            let same = newest.is_some_and(|record| record.run_hash == choice.run_hash);
            let again = same && before.is_some() && before == choice.source.origin.reference.uid.as_ref();
            (!same, !again)
        })
    }
}

impl<'a> Due<'a> {
    /// The template whose run has that hash, where there still is one.
    pub fn template(&self, valid: &Valid, request: Option<&str>, run_hash: &str) -> Option<&'a Value> {
        let templates = self.candidates.iter().filter_map(|source| source.origin.template);
        templates.into_iter().find(|template| job::run_hash(valid, template, request) == run_hash)
    }
}

/// Whether the next attempt at a key may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt<'a> {
    /// Now, after so many failures of the same.
    Now {
        /// Failed attempts of the same spec and template, without anything else in between.
        failures: i32,
    },
    /// After a pause.
    Later {
        /// When.
        at: Timestamp,
        /// The attempt that failed.
        record: &'a RunRecord,
    },
    /// Not by itself: the attempts are used up, or nobody knows how the last one ended.
    Never(&'a RunRecord),
}

/// What the records say of the next attempt at a run of that key, hash and request, if any. A changed
/// spec, template or request starts afresh (contract §6); a run without a result is repeated by
/// another request alone (contract §5), since nobody knows what it did.
pub fn attempt<'a>(
    history: &'a [RunRecord],
    key: &str,
    run_hash: &str,
    request: Option<&str>,
    backoff_limit: i32,
    now: Timestamp,
) -> Attempt<'a> {
    let newest = history.iter().find(|record| record.key == key);
    if let Some(record) =
        newest.filter(|it| it.result == RunResult::Unknown && it.request.as_deref() == request)
    {
        return Attempt::Never(record);
    }
    let failed = |record: &&RunRecord| record.run_hash == run_hash && record.result == RunResult::Failed;
    let Some(record) = newest.filter(failed) else { return Attempt::Now { failures: 0 } };
    let Some(at) = next_attempt(record, backoff_limit) else { return Attempt::Never(record) };
    if now < at { Attempt::Later { at, record } } else { Attempt::Now { failures: record.attempts } }
}

/// When the attempt after a failed one may start; never, once the attempts are used up.
pub(crate) fn next_attempt(failed: &RunRecord, backoff_limit: i32) -> Option<Timestamp> {
    let at = || failed.finished.0.saturating_add(pause_after(failed.attempts)).unwrap_or(Timestamp::MAX);
    (failed.attempts <= backoff_limit).then(at)
}

/// The pause after so many failures.
fn pause_after(failures: i32) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// Whether Pods no longer wait for `key`.
pub fn is_done(done: &[DoneKey], key: &str) -> bool {
    done.iter().any(|one| one.key == key)
}

/// Whether the newest run of a key was given up because its container couldn't start.
pub fn given_up(history: &[RunRecord], key: &str, run_hash: &str) -> bool {
    let newest = history.iter().find(|record| record.key == key);
    newest.is_some_and(|it| it.result == RunResult::NotStarted && it.run_hash == run_hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::first(1, 10)]
    #[case::second(2, 20)]
    #[case::fifth(5, 160)]
    #[case::longest(6, 300)]
    #[case::for_ever(i32::MAX, 300)]
    fn the_pause_doubles_up_to_five_minutes(#[case] failures: i32, #[case] seconds: u64) {
        assert_eq!(pause_after(failures), Duration::from_secs(seconds));
    }
}
