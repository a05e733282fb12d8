//! What a waiter is told: a pure function of its question and the Migrator's status (contract §8).
//! Each message stands alone: what the Pod waits for, why, since when, and where to look.

mod failed;

use std::time::Duration;

use migrations_api::{
    CurrentRun, DoneKey, How, Migrator, MigratorStatus, Reason, RerunOn, RunResult, SupersededRevision,
    conditions, names,
};
use migrations_protocol::{Answer, Question, Verdict};

use crate::decide::MOST_SUPERSEDED;
use crate::selector::Selector;
use crate::snapshot::Requests;
use failed::{append_output, failed, unknown};

/// What is known of the Migrator that a question names.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// There has been none of that name in the namespace, for so long.
    Absent {
        /// How long, as far as it was seen.
        since: Duration,
    },
    /// There is one that this build can't read.
    Unreadable {
        /// Why.
        error: &'a str,
    },
    /// This one.
    Migrator(&'a Migrator),
}

/// How long a Migrator has to be gone before its Pods are released (contract §3).
pub const GONE_FOR_GOOD: Duration = Duration::from_mins(1);

/// Answers the `question` of the Pod with that uid.
pub fn answer(question: &Question, pod_uid: &str, known: Known<'_>) -> Answer {
    let Question { namespace, migrator: name, .. } = question;
    let Told { verdict, reason, message } = match known {
        Known::Absent { since } if since >= GONE_FOR_GOOD => Told::released(
            "NoMigrator",
            format!(
                "Migrator {name} is gone from namespace {namespace}, so there is nothing to wait for any more"
            ),
        ),
        Known::Absent { .. } => Told::wait(
            "NoMigrator",
            format!(
                "waits for Migrator {name}, and there is none in namespace {namespace} any more; unless it is made \
                 again, the Pod starts in a minute"
            ),
        ),
        Known::Unreadable { error } => Told::wait(
            Reason::InvalidSpec.as_str(),
            format!("waits for Migrator {name}, which can't be read: {error}; {}", look_at(question)),
        ),
        Known::Migrator(migrator) => told(question, pod_uid, migrator),
    };
    let version = names::short_hash(format!("{verdict:?}\n{reason}\n{message}").as_bytes());
    Answer { verdict, reason, message, version }
}

struct Told {
    verdict: Verdict,
    reason: String,
    message: String,
}

impl Told {
    fn wait(reason: &str, message: String) -> Self {
        Self { verdict: Verdict::Wait, reason: reason.to_owned(), message }
    }

    fn released(reason: &str, message: String) -> Self {
        Self { verdict: Verdict::Released, reason: reason.to_owned(), message }
    }
}

fn told(question: &Question, pod_uid: &str, migrator: &Migrator) -> Told {
    let nothing_yet = MigratorStatus::default();
    let status = migrator.status.as_ref().unwrap_or(&nothing_yet);
    if Requests::of(migrator).open {
        let message = format!(
            "Migrator {} is annotated {}: \"true\": every Pod starts, migrated or not",
            question.migrator,
            names::OPEN_ANNOTATION
        );
        return Told::released(Reason::GateOpen.as_str(), message);
    }
    if is_left_out(question, migrator) {
        let message = format!(
            "spec.selector of Migrator {} doesn't select this Pod any more, so there is nothing to wait for",
            question.migrator
        );
        return Told::released("NotSelected", message);
    }
    let Some(image) = image(question, migrator, status) else {
        return container_not_found(question, migrator);
    };
    let awaited = Awaited { image, by_template: migrator.spec.rerun_on == Some(RerunOn::Template) };
    // A Pod that nothing else tells apart goes by its own uid (contract §3).
    let is_its_own = |revision: &String| Some(revision) == question.revision.as_ref() || revision == pod_uid;
    if let Some(told) = done(awaited, status, is_its_own) {
        return told;
    }
    let superseded = |one: &&SupersededRevision| is_its_own(&one.revision);
    if let Some(one) = status.superseded.iter().find(superseded) {
        return Told::wait(Reason::Superseded.as_str(), format!("waits in vain: {}", one.reason));
    }
    if question.follower {
        return beyond_the_list(question, image, status, follower(question, status));
    }
    if let Some(current) = status.current.as_ref().filter(|current| awaited.is(&current.key)) {
        return current_run(question, current, status);
    }
    match status.history.iter().find(|record| awaited.is(&record.key)) {
        Some(record) if record.result == RunResult::Failed => return failed(question, record, migrator),
        Some(record) if record.result == RunResult::Unknown => return unknown(question, record),
        _ => {}
    }
    // Told of this Pod's own key, never of a failure that is another key's.
    let told = match stalled(status) {
        Some((reason, message)) => Told::wait(
            reason,
            format!(
                "waits for the migrations of {image}, which can't start: {message}; {}",
                look_at(question)
            ),
        ),
        None => pending(question, image, migrator.status.as_ref()),
    };
    beyond_the_list(question, image, status, told)
}

/// The status doesn't name every revision whose Pods wait in vain where there are many: this may be one.
fn beyond_the_list(question: &Question, image: &str, status: &MigratorStatus, told: Told) -> Told {
    if status.superseded.len() < MOST_SUPERSEDED {
        return told;
    }
    let message = format!(
        "may wait in vain, as Pods of more older revisions do than Migrator {} lists: if its workload has gone on from \
         {image}, delete it, with its Job if it has one; else it {}",
        question.migrator, told.message
    );
    Told { message, ..told }
}

/// What a Pod waits for.
#[derive(Clone, Copy)]
struct Awaited<'a> {
    image: &'a str,
    /// The image alone isn't it: every revision is migrated, and only that can be told.
    by_template: bool,
}

impl Awaited<'_> {
    /// Whether that key is, or may be, what the Pod waits for.
    fn is(&self, key: &str) -> bool {
        match key.strip_prefix(self.image) {
            Some(rest) if self.by_template => rest.starts_with('#'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

/// A Pod is released by its own image, or by its revision once the controller has tied that to a key
/// that is done (contract §3).
fn done(awaited: Awaited<'_>, status: &MigratorStatus, is_its_own: impl Fn(&String) -> bool) -> Option<Told> {
    let Awaited { image, by_template } = awaited;
    let releases =
        |one: &&DoneKey| (!by_template && one.key == image) || one.revisions.iter().any(&is_its_own);
    let done = status.done.iter().find(releases);
    if let Some(DoneKey { key, how, .. }) = done {
        let message = match how {
            How::Succeeded => format!("the migrations of {key} are done"),
            How::Marked => format!("{key} was marked as migrated"),
            How::Baseline => format!("{key} was in use before there were migrations to wait for"),
        };
        return Some(Told::released("Done", message));
    }
    let by_original =
        written_by_the_original(status) && status.last_successful_migration.as_deref() == Some(image);
    (by_original && !by_template).then(|| {
        Told::released(
            "Done",
            format!("the migrations of {image} are done, by the record of an earlier version"),
        )
    })
}

/// What the Pods are doing that this one follows.
fn follower(question: &Question, status: &MigratorStatus) -> Told {
    let look = look_at(question);
    let waits = "follows the Pods that spec.templateSelector selects, and waits for their migrations";
    if let Some(CurrentRun { key, job, started, .. }) = &status.current {
        let message = format!("{waits}: those of {key} run in Job {job} since {:.0}; {look}", started.0);
        return Told::wait(Reason::Running.as_str(), message);
    }
    let held_up = stalled_by_any(status).or_else(|| reconciling(status, &[Reason::BackOff]));
    match (held_up, status.history.first()) {
        (Some((reason, _)), Some(record)) if record.result == RunResult::Failed => {
            let mut told = format!("{waits}: those of {} failed in Job {}; {look}", record.key, record.job);
            append_output(&mut told, &record.message);
            Told::wait(reason, told)
        }
        (Some((reason, message)), _) => Told::wait(reason, format!("{waits}: {message}; {look}")),
        (None, _) => Told::wait(Reason::Pending.as_str(), format!("{waits}, which haven't started; {look}")),
    }
}

/// The image that decides: of the container that the Migrator names, else of the one that its
/// controller found to be the application's, else of the first.
fn image<'q>(question: &'q Question, migrator: &Migrator, status: &MigratorStatus) -> Option<&'q str> {
    let named = |name: &String| question.containers.iter().find(|container| container.name == *name);
    let container = match &migrator.spec.container {
        Some(name) if !name.is_empty() => named(name),
        _ => status.container.as_ref().and_then(named).or(question.containers.first()),
    };
    container.map(|container| container.image.as_str())
}

/// Whether the Migrator selects other Pods by now. Not where the Pod's labels aren't known, or the
/// selector can't be followed.
fn is_left_out(question: &Question, migrator: &Migrator) -> bool {
    let selector = Selector::parse(&migrator.spec.selector);
    !question.labels.is_empty() && selector.is_ok_and(|selector| !selector.matches(&question.labels))
}

/// The original keeps one image and no records.
fn written_by_the_original(status: &MigratorStatus) -> bool {
    status.history.is_empty() && status.done.is_empty()
}

fn container_not_found(question: &Question, migrator: &Migrator) -> Told {
    let wanted = migrator.spec.container.as_deref().unwrap_or_default();
    let present: Vec<_> = question.containers.iter().map(|container| container.name.as_str()).collect();
    Told::wait(
        Reason::ContainerNotFound.as_str(),
        format!(
            "waits for Migrator {}, whose spec.container {wanted:?} this Pod doesn't have (it has: {}); name one of \
             those in spec.container, or make spec.selector leave this Pod out; {}",
            question.migrator,
            present.join(", "),
            look_at(question)
        ),
    )
}

fn current_run(question: &Question, current: &CurrentRun, status: &MigratorStatus) -> Told {
    let CurrentRun { key, job, job_uid, attempt, started, .. } = current;
    if job_uid.is_none() {
        let message = format!(
            "waits for the migrations of {key}, about to start in Job {job} (attempt {attempt}); {}",
            look_at(question)
        );
        return Told::wait(Reason::Pending.as_str(), message);
    }
    let ready = status.conditions.iter().find(|condition| condition.type_ == conditions::READY);
    if let Some(ready) = ready.filter(|ready| ready.reason == Reason::Pending.as_str()) {
        // Its container hasn't started, and the controller knows why.
        let message = format!("waits: {}; {}", ready.message, look_at(question));
        return Told::wait(Reason::Pending.as_str(), message);
    }
    let namespace = &question.namespace;
    Told::wait(
        Reason::Running.as_str(),
        format!(
            "waits for the migrations of {key}, running in Job {job} (attempt {attempt}, since {:.0}); \
             `kubectl logs -n {namespace} job/{job}`",
            started.0
        ),
    )
}

/// Why nothing can start at all, in the controller's words.
fn stalled(status: &MigratorStatus) -> Option<(&str, &str)> {
    let of_another_key = [Reason::MigrationFailed.as_str(), Reason::ResultUnknown.as_str()];
    stalled_by_any(status).filter(|(reason, _)| !of_another_key.contains(reason))
}

/// The condition that keeps things from starting, for now or for good.
fn stalled_by_any(status: &MigratorStatus) -> Option<(&str, &str)> {
    let stalled = status.conditions.iter().find(|it| it.type_ == conditions::STALLED && it.status == "True");
    let stalled = stalled.map(|condition| (condition.reason.as_str(), condition.message.as_str()));
    stalled.or_else(|| reconciling(status, &[Reason::Locked, Reason::EarlierRunUnfinished]))
}

/// What the operator waits for itself, where it is one of `reasons`.
fn reconciling<'s>(status: &'s MigratorStatus, reasons: &[Reason]) -> Option<(&'s str, &'s str)> {
    let condition = status.conditions.iter().find(|condition| {
        let is_one = reasons.iter().any(|reason| reason.as_str() == condition.reason);
        condition.type_ == conditions::RECONCILING && condition.status == "True" && is_one
    })?;
    Some((&condition.reason, &condition.message))
}

fn pending(question: &Question, key: &str, status: Option<&MigratorStatus>) -> Told {
    let look = look_at(question);
    let message = match status.map(|status| status.current.as_ref()) {
        None => format!(
            "waits for the migrations of {key}; the operator's controller hasn't looked at Migrator {} yet; {look}",
            question.migrator
        ),
        Some(Some(CurrentRun { key: other, job, started, .. })) => format!(
            "waits for the migrations of {key}, which come after those of {other} (running in Job {job} since {:.0}); \
             {look}",
            started.0
        ),
        Some(None) => format!("waits for the migrations of {key}, which haven't started; {look}"),
    };
    Told::wait(Reason::Pending.as_str(), message)
}

fn look_at(question: &Question) -> String {
    format!("`kubectl describe migrator {} -n {}`", question.migrator, question.namespace)
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;
