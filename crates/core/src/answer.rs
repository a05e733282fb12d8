//! What a waiter is told: a pure function of its question and the Migrator's status (contract §8).
//! Each message stands alone: what the Pod waits for, why, since when, and where to look.

use migrations_api::{
    CurrentRun, How, Migrator, MigratorStatus, Reason, RunRecord, RunResult, conditions, names,
};
use migrations_protocol::{Answer, Question, Verdict};

use crate::result::last_bytes;

/// Most of a run's output that an answer repeats, in bytes.
const OUTPUT: usize = 4096;

/// What is known of the Migrator that a question names.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// There is none of that name in the namespace.
    Absent,
    /// There is one that this build can't read.
    Unreadable {
        /// Why.
        error: &'a str,
    },
    /// This one.
    Migrator(&'a Migrator),
}

/// Answers `question`.
pub fn answer(question: &Question, known: Known<'_>) -> Answer {
    let Question { namespace, migrator: name, containers: _, revision: _, follower: _, seen: _ } = question;
    let Told { verdict, reason, message } = match known {
        Known::Absent => Told::wait(
            "NoMigrator",
            format!(
                "waits for Migrator {name}, and there is none in namespace {namespace}; create it, or annotate the \
                 Pod's template with {}: \"true\" to start without migrations",
                names::NO_WAIT_ANNOTATION
            ),
        ),
        Known::Unreadable { error } => Told::wait(
            Reason::InvalidSpec.as_str(),
            format!("waits for Migrator {name}, which can't be read: {error}; {}", look_at(question)),
        ),
        Known::Migrator(migrator) => told(question, migrator),
    };
    let version = names::short_hash(format!("{verdict:?}\n{reason}\n{message}").as_bytes());
    Answer { verdict, reason: reason.to_owned(), message, version }
}

struct Told<'a> {
    verdict: Verdict,
    reason: &'a str,
    message: String,
}

impl<'a> Told<'a> {
    fn wait(reason: &'a str, message: String) -> Self {
        Self { verdict: Verdict::Wait, reason, message }
    }
}

fn told<'a>(question: &Question, migrator: &'a Migrator) -> Told<'a> {
    let nothing_yet = MigratorStatus::default();
    let status = migrator.status.as_ref().unwrap_or(&nothing_yet);
    let Some(key) = key(question, migrator, status) else {
        return container_not_found(question, migrator);
    };
    if let Some(done) = status.done.iter().find(|done| done.key == key) {
        let message = match done.how {
            How::Succeeded => format!("the migrations of {key} are done"),
            How::Marked => format!("{key} was marked as migrated"),
            How::Baseline => format!("{key} was in use before there were migrations to wait for"),
        };
        return Told { verdict: Verdict::Released, reason: "Done", message };
    }
    if written_by_the_original(status) && status.last_successful_migration.as_deref() == Some(key) {
        let message = format!("the migrations of {key} are done, by the record of an earlier version");
        return Told { verdict: Verdict::Released, reason: "Done", message };
    }
    if let Some(current) = status.current.as_ref().filter(|current| current.key == key) {
        return current_run(question, current);
    }
    match status.history.iter().find(|record| record.key == key) {
        Some(record) if record.result == RunResult::Failed => return failed(question, record),
        Some(record) if record.result == RunResult::Unknown => return unknown(question, record),
        _ => {}
    }
    // Told of this Pod's own key, never of a failure that is another key's.
    match migrator.status.as_ref().and_then(|status| stalled(status)) {
        Some((reason, message)) => Told::wait(
            reason,
            format!("waits for the migrations of {key}, which can't start: {message}; {}", look_at(question)),
        ),
        None => pending(question, key, migrator.status.as_ref()),
    }
}

/// The image that decides: of the container that the Migrator names, else of the one that its
/// controller found to be the application's, else of the first.
fn key<'q>(question: &'q Question, migrator: &Migrator, status: &MigratorStatus) -> Option<&'q str> {
    let named = |name: &String| question.containers.iter().find(|container| container.name == *name);
    let container = match &migrator.spec.container {
        Some(name) if !name.is_empty() => named(name),
        _ => status.container.as_ref().and_then(named).or(question.containers.first()),
    };
    container.map(|container| container.image.as_str())
}

/// The original keeps one image and no records.
fn written_by_the_original(status: &MigratorStatus) -> bool {
    status.history.is_empty() && status.done.is_empty()
}

fn container_not_found<'a>(question: &Question, migrator: &Migrator) -> Told<'a> {
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

fn current_run<'a>(question: &Question, current: &CurrentRun) -> Told<'a> {
    let CurrentRun { key, job, job_uid, attempt, started, .. } = current;
    if job_uid.is_none() {
        let message = format!(
            "waits for the migrations of {key}, about to start in Job {job} (attempt {attempt}); {}",
            look_at(question)
        );
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

fn failed<'a>(question: &Question, record: &RunRecord) -> Told<'a> {
    let RunRecord { key, job, attempt, finished, message, .. } = record;
    let mut told = format!(
        "waits for the migrations of {key}, which failed in Job {job} (attempt {attempt}, at {:.0}); {}",
        finished.0,
        look_at(question)
    );
    if !message.is_empty() {
        told.push_str("\nits last output:\n");
        told.push_str(last_bytes(message.trim_end(), OUTPUT));
    }
    Told::wait(Reason::Failed.as_str(), told)
}

fn unknown<'a>(question: &Question, record: &RunRecord) -> Told<'a> {
    let RunRecord { key, job, attempt, finished, message, .. } = record;
    let why = if message.is_empty() { String::new() } else { format!(" ({})", last_bytes(message, OUTPUT)) };
    Told::wait(
        Reason::Unknown.as_str(),
        format!(
            "waits for the migrations of {key}: nobody saw how Job {job} ended{why} (attempt {attempt}, at {:.0}), so \
             it is not run again by itself; look at the database, then {}",
            finished.0,
            look_at(question)
        ),
    )
}

/// Why nothing can start at all, in the controller's words.
fn stalled(status: &MigratorStatus) -> Option<(&str, &str)> {
    let of_another_key = [Reason::Failed.as_str(), Reason::Unknown.as_str()];
    let stalled = status.conditions.iter().find(|c| c.type_ == conditions::STALLED && c.status == "True")?;
    (!of_another_key.contains(&stalled.reason.as_str()))
        .then_some((stalled.reason.as_str(), stalled.message.as_str()))
}

fn pending<'a>(question: &Question, key: &str, status: Option<&MigratorStatus>) -> Told<'a> {
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
