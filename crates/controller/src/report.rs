//! Tells what was done: one log line, and events where users look.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use migrations_api::{Migrator, Reason};
use migrations_core::plan::{self, Plan};
use migrations_core::result::last_bytes;

use crate::execute::Outcome;
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
    pub async fn outcome(&self, migrator: &Migrator, plan: &Plan, outcome: &Outcome) {
        // A refused Job is news of its own, told by the status that came before it.
        if *outcome == Outcome::Outdated {
            tracing::debug!("the plan was outdated; another look follows");
            return;
        }
        for event in &plan.events {
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
    use super::*;

    #[test]
    fn a_long_note_keeps_its_first_line_and_its_end() {
        let note = format!("migration of shop:v1 failed\n{}\nValueError: no", "frame\n".repeat(500));
        let cut = shortened(&note);
        assert!(cut.len() <= LONGEST_NOTE);
        assert!(cut.starts_with("migration of shop:v1 failed\n...\n") && cut.ends_with("ValueError: no"));
        assert_eq!(shortened("short"), "short");
    }
}
