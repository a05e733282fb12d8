//! Tells what was done: one log line, and events where users look.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use migrations_api::{Migrator, Reason};
use migrations_core::plan::{self, Plan};
use migrations_core::result::last_bytes;

use crate::execute::{Error, Outcome};
use crate::watch::Guarded;

/// Longest note of an event, in bytes (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1024;

/// Where it is told.
pub struct Report {
    recorder: Recorder,
}

impl Report {
    /// Reports as the controller.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: "migrations-controller".to_owned(), instance: None };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Tells what became of a plan. An event that can't be published is lost: it must not hold up a
    /// migration.
    pub async fn outcome(&self, migrator: &Migrator, plan: &Plan, executed: &Result<Outcome, Error>) {
        for event in to_tell(plan, executed) {
            if event.warning {
                tracing::warn!(reason = event.reason.as_str(), "{}", event.note);
            } else {
                tracing::info!(reason = event.reason.as_str(), "{}", event.note);
            }
            self.publish(event, &migrator.object_ref(&())).await;
            if let Some(source) = &event.workload {
                let workload = ObjectReference {
                    api_version: Some(source.api_version.clone()),
                    kind: Some(source.kind.clone()),
                    name: Some(source.name.clone()),
                    uid: source.uid.clone(),
                    namespace: migrator.namespace(),
                    ..ObjectReference::default()
                };
                self.publish(event, &workload).await;
            }
        }
    }

    /// Tells of an object that can't be decoded: its condition can't be written.
    pub async fn undecodable(&self, object: &Guarded, error: &str) {
        let note = format!(
            "this Migrator can't be read, so nothing is done about it: {error}; 'kubectl explain migrator.spec' \
             shows what is expected where"
        );
        tracing::warn!(name = object.name_any(), namespace = object.namespace(), "{note}");
        let event = plan::Event { warning: true, reason: Reason::InvalidSpec, note, workload: None };
        self.publish(&event, &object.object_ref(&())).await;
    }

    async fn publish(&self, event: &plan::Event, reference: &ObjectReference) {
        let published = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.as_str().to_owned(),
            note: Some(shortened(&event.note)),
            action: "Migrate".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&published, reference).await {
            tracing::warn!(%error, "cannot publish an event");
        }
    }
}

/// What of a plan's events is to be told. What a status that was written says is told by no later plan,
/// whatever became of the effects; what an effect does is, with its next try.
fn to_tell<'p>(plan: &'p Plan, executed: &Result<Outcome, Error>) -> Vec<&'p plan::Event> {
    match executed {
        Ok(Outcome::Outdated) | Err(Error::Status(_)) => Vec::new(),
        // That a Job is refused is for the next look to tell.
        Ok(Outcome::JobRefused(_)) => {
            plan.events.iter().filter(|event| event.reason != Reason::Running).collect()
        }
        Ok(Outcome::Done | Outcome::Interrupted) => plan.events.iter().collect(),
        Err(_) if plan.status.is_none() => Vec::new(),
        Err(_) => plan.events.iter().filter(|event| !event.of_effect()).collect(),
    }
}

/// A note that an event can hold: its first line says what happened, its end most often why.
fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let (first, rest) = note.split_once('\n').unwrap_or(("", note));
    let first = last_bytes(first, LONGEST_NOTE / 2);
    let rest = last_bytes(rest, LONGEST_NOTE - first.len() - "\n...\n".len());
    format!("{first}\n...\n{rest}")
}

#[cfg(test)]
mod tests {
    use migrations_api::MigratorStatus;
    use rstest::rstest;

    use super::*;

    fn refused() -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("no", "Forbidden").boxed())
    }

    fn event(warning: bool, reason: Reason, note: &str) -> plan::Event {
        plan::Event { warning, reason, note: note.to_owned(), workload: None }
    }

    #[rstest]
    #[case::all_done(Ok(Outcome::Done), true, &["failed", "started", "deleted", "in vain"])]
    #[case::changed_after_the_status(Ok(Outcome::Interrupted), true, &["failed", "started", "deleted", "in vain"])]
    #[case::start_refused(Ok(Outcome::JobRefused("no".to_owned())), true, &["failed", "deleted", "in vain"])]
    #[case::nothing_done(Ok(Outcome::Outdated), true, &[])]
    #[case::status_refused(Err(Error::Status(refused())), true, &[])]
    #[case::delete_refused(Err(Error::Delete("shop-1".to_owned(), refused())), true, &["failed", "in vain"])]
    #[case::told_again_by_the_next_plan(Err(Error::Delete("shop-1".to_owned(), refused())), false, &[])]
    fn what_the_status_says_is_told_although_an_effect_failed(
        #[case] executed: Result<Outcome, Error>,
        #[case] status: bool,
        #[case] told: &[&str],
    ) {
        let plan = Plan {
            status: status.then(|| Box::new(MigratorStatus::default())),
            events: vec![
                event(true, Reason::MigrationFailed, "failed"),
                event(false, Reason::Running, "started"),
                event(false, Reason::Superseded, "deleted"),
                event(true, Reason::Superseded, "in vain"),
            ],
            ..Plan::default()
        };
        let notes: Vec<_> = to_tell(&plan, &executed).iter().map(|event| event.note.as_str()).collect();
        assert_eq!(notes, told);
    }

    #[test]
    fn a_long_note_keeps_its_first_line_and_its_end() {
        let note = format!("migration of shop:v1 failed\n{}\nValueError: no", "frame\n".repeat(500));
        let cut = shortened(&note);
        assert!(cut.len() <= LONGEST_NOTE);
        assert!(cut.starts_with("migration of shop:v1 failed\n...\n") && cut.ends_with("ValueError: no"));
        assert_eq!(shortened("short"), "short");
    }
}
