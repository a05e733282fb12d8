//! What to do about one Migrator now. Total and deterministic: every crash between two effects is
//! just another snapshot to decide on (contract §5).
//!
//! A run goes through the status: *claim* it there, *create* its Job suspended, *bind* the Job's
//! uid there, *start* it, *record* its result there. Only a bound Job is ever started, and every
//! write of the status carries the version it was read at, so of two controllers one wins.

mod run;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use migrations_api::conditions::READY;
use migrations_api::{CurrentRun, DoneKey, How, MigratorStatus, Reason, RunRecord, RunResult};

use crate::due::{Due, Member, Survey, blocked, due, given_up, is_done, survey};
use crate::job::{self, RunIdentity};
use crate::plan::{Effect, Event, Plan};
use crate::snapshot::{Gate, JobFacts, JobOutcome, Snapshot};
use crate::status::{Standing, State, conditions};
use crate::validate::{Refusal, Valid};
use crate::workload::Revision;

/// How many ended runs the status keeps.
const HISTORY: usize = 10;

/// How many done keys the status keeps beyond those that Pods still have.
const DONE: usize = 10;

/// Some changes come without an event on a Pod (a StatefulSet's status, an owner that becomes
/// readable), so a Pod that waits for nothing known is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Decides. A `refusal` stops new runs, but never loses the result of one under way.
pub fn decide(spec: Result<&Valid, &Refusal>, snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut draft =
        Draft { snapshot, now, status: snapshot.status.clone(), effects: Vec::new(), events: Vec::new() };
    draft.adopt_original();
    let (survey, standing) = match spec {
        Ok(valid) => {
            let survey = survey(valid, snapshot);
            draft.record_baselines(&survey);
            let standing = draft.follow(valid, &survey);
            (Some(survey), standing)
        }
        Err(Refusal { reason, message }) => {
            let standing = draft.advance(None).unwrap_or_else(|| Standing::stalled(*reason, message));
            (None, standing)
        }
    };
    draft.delete_leftovers();
    draft.finish(survey.as_ref(), standing)
}

/// A plan in the making.
struct Draft<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
    status: MigratorStatus,
    effects: Vec<Effect>,
    events: Vec<Event>,
}

impl Draft<'_> {
    /// The original kept one image as its only memory (contract §3).
    fn adopt_original(&mut self) {
        let status = &mut self.status;
        if !status.done.is_empty() || !status.history.is_empty() {
            return;
        }
        if let Some(image) = status.last_successful_migration.clone() {
            status.done.push(DoneKey::new(image.clone(), image, How::Succeeded));
        }
    }

    /// Pods that serve from an older revision prove that it needs no run; recorded, so that they can
    /// always be replaced. Not where the newest revision has the same key (a restart of Pods that are
    /// older than the gate): that one gets its run.
    fn record_baselines(&mut self, survey: &Survey<'_>) {
        let of = |revision| survey.members.iter().filter(move |it| it.workload.revision == revision);
        for member in of(Revision::Older).filter(|member| member.pod.application_started()) {
            let key = &member.workload.key;
            let newest = of(Revision::Current).any(|member| member.workload.key == *key);
            if !newest && !is_done(&self.status.done, key) {
                let done = DoneKey::new(key.clone(), key.clone(), How::Baseline);
                self.status.done.push(done);
            }
        }
    }

    /// The run under way first; then the next one.
    fn follow(&mut self, valid: &Valid, survey: &Survey<'_>) -> Standing {
        let done = self.status.done.clone();
        let due = due(valid, survey, &done);
        if let Some(standing) = self.advance(Some((valid, &due))) {
            return standing;
        }
        // The run that has just ended may have made one of them done.
        let due: Vec<_> = due.into_iter().filter(|due| !is_done(&self.status.done, due.key)).collect();
        if due.is_empty() { self.at_rest(valid, survey) } else { self.claim(valid, &due) }
    }

    /// Claims the first due key that no failed run blocks.
    fn claim(&mut self, valid: &Valid, due: &[Due<'_>]) -> Standing {
        let mut stalled = None;
        let mut due: Vec<_> =
            due.iter().map(|due| (due, job::run_hash(valid, due.source.workload.template))).collect();
        due.sort_by_key(|(due, run_hash)| given_up(&self.status.history, due.key, run_hash));
        for (due, run_hash) in due {
            let template = due.source.workload.template;
            if let Some(record) = blocked(&self.status.history, due.key, &run_hash) {
                stalled.get_or_insert_with(|| failed(record));
                continue;
            }
            if let Some(reason) = self.earlier_run(None) {
                return reason;
            }
            let run = RunIdentity {
                key: due.key.to_owned(),
                attempt: next_attempt(&self.status.history, due.key, &run_hash),
                run_hash,
            };
            let Some(image) = job::run_image(valid, template) else { continue };
            let job = match job::render(valid, self.snapshot, template, &run) {
                Ok(rendered) => rendered.job,
                Err(Refusal { reason, message }) => {
                    stalled.get_or_insert_with(|| Standing::stalled(reason, message));
                    continue;
                }
            };
            let name = run.job_name(&self.snapshot.name, &self.snapshot.uid);
            let standing =
                Standing::reconciling(Reason::Pending, format!("migration of {} is about to start", due.key));
            let RunIdentity { key, attempt, run_hash } = run;
            let started = MicroTime(self.now);
            self.status.current = Some(CurrentRun {
                key,
                image,
                job: name,
                job_uid: None,
                attempt,
                run_hash,
                failures: 0,
                started,
                given_up: None,
                deadline_told: false,
            });
            self.status.source = Some(due.source());
            self.effects.push(Effect::CreateJob(Box::new(job)));
            return standing;
        }
        stalled.unwrap_or_else(|| Standing::stalled(Reason::NoSource, "no Pod to clone a run from"))
    }

    /// Nothing is due: why.
    fn at_rest(&self, valid: &Valid, survey: &Survey<'_>) -> Standing {
        let snapshot = self.snapshot;
        if let (Some(pod), Some(container)) = (survey.lacking.first(), &valid.container) {
            let names: Vec<_> = pod.containers.iter().map(|it| it.name.as_str()).collect();
            return Standing::stalled(
                Reason::ContainerNotFound,
                format!(
                    "spec.container {container:?} is not in Pod {} (its containers: {}); name one of these \
                     or narrow spec.selector",
                    pod.name,
                    names.join(", ")
                ),
            );
        }
        let undone = |member: &&Member<'_>| {
            member.workload.revision == Revision::Current && !is_done(&self.status.done, &member.workload.key)
        };
        if let Some(member) = survey.members.iter().find(undone) {
            return Standing::stalled(
                Reason::NoSource,
                format!(
                    "Pod {} waits for {}, but no Pod of that image matches spec.templateSelector, so there \
                     is nothing to clone a run from",
                    member.pod.name, member.workload.key
                ),
            );
        }
        match &snapshot.gate {
            Gate::Excluded => Standing::stalled(
                Reason::NamespaceExcluded,
                format!(
                    "admission leaves namespace {} alone, so no Pod is held there; move the Migrator",
                    snapshot.namespace
                ),
            ),
            Gate::Pending(why) => Standing::reconciling(Reason::GatePending, why.clone()),
            Gate::InPlace if survey.members.is_empty() => {
                Standing::ready(Reason::Idle, "no Pod matches the selector")
            }
            Gate::InPlace => Standing::ready(Reason::UpToDate, "every image in use is migrated"),
        }
    }

    /// Orphans of claims that were lost, and ended runs beyond those kept for their logs: the newest
    /// success, of failures the first and the last (contract §2).
    fn delete_leftovers(&mut self) {
        let current = self.status.current.as_ref().map(|run| run.job.as_str());
        let ours = |job: &&JobFacts| {
            job.owner_uid.as_deref() == Some(self.snapshot.uid.as_str())
                && Some(job.name.as_str()) != current
                && !job.terminating
        };
        let mut succeeded = Vec::new();
        let mut failed = Vec::new();
        let mut delete = Vec::new();
        for job in self.snapshot.jobs.iter().filter(ours) {
            let has_pod = self.snapshot.run_pods.iter().any(|pod| run::belongs(pod, &job.uid));
            match &job.outcome {
                Some(JobOutcome::Complete) => succeeded.push(job),
                Some(JobOutcome::Failed(_)) => failed.push(job),
                None if job.suspended && !has_pod => delete.push(job),
                None => {}
            }
        }
        succeeded.sort_by_key(|job| job.created);
        failed.sort_by_key(|job| job.created);
        succeeded.pop();
        failed.pop();
        delete.extend(succeeded);
        delete.extend(failed.into_iter().skip(1));
        self.effects.extend(
            delete.into_iter().map(|job| Effect::DeleteJob { name: job.name.clone(), uid: job.uid.clone() }),
        );
    }

    /// Counts, conditions, and what is trimmed.
    fn finish(mut self, survey: Option<&Survey<'_>>, standing: Standing) -> Plan {
        let snapshot = self.snapshot;
        let mut look_again = None;
        if let Some(survey) = survey {
            let done = &self.status.done;
            let undone = survey
                .members
                .iter()
                .filter(|member| !is_done(done, &member.workload.key))
                .collect::<Vec<_>>();
            let count = |pods: usize| Some(i32::try_from(pods).unwrap_or(i32::MAX));
            let lacking = survey.lacking.iter().filter(|pod| pod.gated_by(&snapshot.name)).count();
            self.status.waiting =
                count(undone.iter().filter(|member| member.waits(&snapshot.name)).count() + lacking);
            self.status.ungated =
                count(undone.iter().filter(|member| member.ungated(&snapshot.name)).count());
            if !undone.is_empty() {
                look_again = Some(LOOK_AGAIN);
            }
            if !survey.members.is_empty() {
                self.status.container = agreed_container(survey);
            }
            trim_done(&mut self.status.done, survey);
        }
        self.status.history.truncate(HISTORY);
        self.status.observed_generation = snapshot.generation;
        self.status.conditions =
            conditions(&snapshot.status.conditions, &standing, snapshot.generation, self.now);
        let changed = self.status != snapshot.status;
        if standing.state == State::Stalled && standing_changed(snapshot, &standing) {
            self.events.push(Event {
                warning: true,
                reason: standing.reason,
                note: standing.message,
                workload: self.status.source.clone(),
            });
        }
        Plan {
            status: changed.then(|| Box::new(self.status)),
            effects: self.effects,
            events: self.events,
            look_again,
        }
    }
}

/// Whether this is news: another reason or message than the status had.
fn standing_changed(snapshot: &Snapshot, standing: &Standing) -> bool {
    let before = snapshot.status.conditions.iter().find(|condition| condition.type_ == READY);
    before.is_none_or(|it| it.reason != standing.reason.as_str() || it.message != standing.message)
}

/// One more than the newest attempt at the same: attempts that were trimmed have lower numbers.
fn next_attempt(history: &[RunRecord], key: &str, run_hash: &str) -> i32 {
    let same = history.iter().filter(|record| record.key == key && record.run_hash == run_hash);
    same.map(|record| record.attempt).max().unwrap_or(0).saturating_add(1)
}

/// The standing that a run which ended badly leaves behind.
fn failed(record: &RunRecord) -> Standing {
    let RunRecord { key, job, message, .. } = record;
    match record.result {
        RunResult::Unknown => Standing::stalled(
            Reason::Unknown,
            format!(
                "migration of {key} (Job {job}) left no result: {message}. Look at the database, then roll \
                 out another image or change the Migrator's spec"
            ),
        ),
        _ => Standing::stalled(
            Reason::Failed,
            format!(
                "migration of {key} failed (Job {job}): {message}\nRoll out a repaired image, or change the \
                 Migrator's spec or the workload's template to run it again"
            ),
        ),
    }
}

/// The key container's name where it is the same in all templates: waiters of Pods that a service
/// mesh gave another first container are answered by it.
fn agreed_container(survey: &Survey<'_>) -> Option<String> {
    let mut names = survey.members.iter().map(|member| &member.workload.container);
    let first = names.next()?;
    names.all(|name| name == first).then(|| first.clone())
}

/// Keeps the newest, and whatever a Pod still has (contract §5, S5).
fn trim_done(done: &mut Vec<DoneKey>, survey: &Survey<'_>) {
    let mut kept = 0;
    done.retain(|one| {
        kept += 1;
        kept <= DONE || survey.members.iter().any(|member| member.workload.key == one.key)
    });
}
