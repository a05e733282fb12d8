//! Which keys are due, and which Pod leads the run of each (contract §3).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use migrations_api::{DoneKey, RunRecord, RunResult, Source};

use crate::snapshot::{PodFacts, Snapshot};
use crate::validate::Valid;
use crate::workload::{Climb, Revision, Workload, climb, is_run};

/// The matching Pods, each with where it comes from.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    /// Live Pods whose workload is known.
    pub members: Vec<Member<'a>>,
    /// Live Pods that lack the named container.
    pub lacking: Vec<&'a PodFacts>,
}

/// A matching Pod and its workload.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The Pod.
    pub pod: &'a PodFacts,
    /// Where it comes from.
    pub workload: Workload<'a>,
}

/// A key that a run is due for.
#[derive(Clone, Debug)]
pub struct Due<'a> {
    /// The key.
    pub key: &'a str,
    /// The Pod that the run is cloned from.
    pub source: &'a Member<'a>,
    /// Since when Pods wait for it.
    since: Option<Timestamp>,
}

impl Due<'_> {
    /// The source as the status shows it.
    pub fn source(&self) -> Source {
        let reference = &self.source.workload.reference;
        Source {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            name: reference.name.clone(),
            uid: reference.uid.clone(),
            pod: self.source.pod.name.clone(),
            revision: None,
        }
    }
}

impl Member<'_> {
    /// Whether it holds its application back until the key is done.
    pub fn waits(&self, migrator: &str) -> bool {
        self.pod.gated_by(migrator) && !self.pod.application_started() && !self.pod.no_wait
    }

    /// Whether it runs, or will, without having been held.
    pub fn ungated(&self, migrator: &str) -> bool {
        !self.pod.gated_by(migrator) && !self.pod.no_wait
    }
}

/// Looks at every matching Pod once.
pub fn survey<'a>(valid: &Valid, snapshot: &'a Snapshot) -> Survey<'a> {
    let container = valid.container.as_deref();
    let mut survey = Survey { members: Vec::new(), lacking: Vec::new() };
    for pod in snapshot.pods.iter().filter(|pod| pod.live() && !is_run(pod)) {
        if pod.key_container(container).is_none() {
            survey.lacking.push(pod);
        } else if let Some(Climb::Reached(workload)) = climb(pod, container, &snapshot.owners) {
            survey.members.push(Member { pod, workload });
        }
    }
    survey
}

/// Keys that are due, the one with the oldest Pod first. A key is due when a live Pod of its
/// workload's current revision exists and the key isn't done.
pub fn due<'a>(valid: &Valid, survey: &'a Survey<'a>, done: &[DoneKey]) -> Vec<Due<'a>> {
    let leads = |member: &&Member<'_>| {
        let selected = valid.template_selector.as_ref().is_none_or(|it| it.matches(&member.pod.labels));
        member.workload.revision == Revision::Current && selected && !is_done(done, &member.workload.key)
    };
    let mut keys: BTreeMap<&str, Vec<&Member<'_>>> = BTreeMap::new();
    for member in survey.members.iter().filter(leads) {
        keys.entry(&member.workload.key).or_default().push(member);
    }
    let mut due: Vec<_> = keys
        .into_iter()
        .filter_map(|(key, members)| {
            let since = members.iter().filter_map(|member| member.pod.created).min();
            let source = members.into_iter().min_by_key(|member| {
                // Kinds that serve know the application's whole configuration best, new Pods its
                // latest; the name only settles what is equal otherwise.
                (!member.workload.long_running, Reverse(member.pod.created), &member.pod.name)
            })?;
            Some(Due { key, source, since })
        })
        .collect();
    due.sort_by_key(|due| (due.since, due.key));
    due
}

/// Whether Pods no longer wait for `key`.
pub fn is_done(done: &[DoneKey], key: &str) -> bool {
    done.iter().any(|one| one.key == key)
}

/// The failed run that keeps a key from being run again: the newest for it, of the same spec and
/// template. A changed one starts afresh (contract §6).
pub fn blocked<'a>(history: &'a [RunRecord], key: &str, run_hash: &str) -> Option<&'a RunRecord> {
    let newest = history.iter().find(|record| record.key == key)?;
    let final_result = matches!(newest.result, RunResult::Failed | RunResult::Unknown);
    (final_result && newest.run_hash == run_hash).then_some(newest)
}

/// Whether the newest run of a key was given up because its container couldn't start.
pub fn given_up(history: &[RunRecord], key: &str, run_hash: &str) -> bool {
    let newest = history.iter().find(|record| record.key == key);
    newest.is_some_and(|it| it.result == RunResult::NotStarted && it.run_hash == run_hash)
}
