//! What to do about one Migrator now. Total and deterministic: every crash between two effects is
//! just another snapshot to decide on (contract §5).
//!
//! A run goes through the status: *claim* it there, *create* its Job suspended, *bind* the Job's
//! uid there, *start* it, *record* its result there. Only a bound Job is ever started, and every
//! write of the status carries the version it was read at, so of two controllers one wins.

mod claim;
mod deadline;
mod leftovers;
mod lock;
mod records;
mod rest;
mod run;
mod superseded;
mod unstarted;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use migrations_api::conditions::{GATE_OPEN, READY};
use migrations_api::{MigratorStatus, Reason};

use crate::due::due;
use crate::plan::{Effect, Event, Plan};
use crate::snapshot::Snapshot;
use crate::status::{Extra, Standing, State, conditions};
use crate::survey::{Survey, survey};
use crate::validate::{Refusal, Valid};

use run::Wanted;
pub use superseded::MOST_SUPERSEDED;
pub use unstarted::ASK_AFTER;

/// Some changes come without an event on a Pod (a StatefulSet's status, an owner that becomes
/// readable), so a Pod that waits for nothing known is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Decides. A `refusal` stops new runs, but never loses the result of one under way.
pub fn decide(spec: Result<&Valid, &Refusal>, snapshot: &Snapshot, now: Timestamp) -> Plan {
    let mut draft = Draft {
        snapshot,
        now,
        status: snapshot.status.clone(),
        effects: Vec::new(),
        events: Vec::new(),
        look_again: None,
        extra: BTreeMap::new(),
        failure_told: false,
    };
    let (survey, standing) = match spec {
        Ok(valid) => {
            let survey = survey(valid, &snapshot.pods, &snapshot.owners);
            draft.adopt_original(Some((valid, &survey)));
            draft.record_marks(valid, &survey);
            draft.record_baselines(&survey);
            draft.notice_run_image(valid, &survey);
            let standing = draft.follow(valid, &survey);
            draft.supersede(&survey);
            draft.mind_deadlines(&survey, &standing);
            draft.delete_leftovers(Some(valid));
            (Some(survey), standing)
        }
        Err(Refusal { reason, message }) => {
            draft.adopt_original(None);
            let standing = draft.advance(None).unwrap_or_else(|| Standing::stalled(*reason, message));
            draft.delete_leftovers(None);
            (None, standing)
        }
    };
    draft.release_locks();
    draft.tell_open_gate();
    draft.finish(survey.as_ref(), standing)
}

/// A plan in the making.
struct Draft<'a> {
    snapshot: &'a Snapshot,
    now: Timestamp,
    status: MigratorStatus,
    effects: Vec<Effect>,
    events: Vec<Event>,
    look_again: Option<Duration>,
    /// Conditions beside the usual ones that are news: set, or taken away.
    extra: BTreeMap<&'static str, Option<Extra>>,
    /// A failed run was told just now.
    failure_told: bool,
}

impl Draft<'_> {
    /// The run under way first; then the next one.
    fn follow(&mut self, valid: &Valid, survey: &Survey<'_>) -> Standing {
        let requested = self.snapshot.run_requested();
        let request = self.snapshot.request();
        let keys = due(survey, &self.status.done, requested);
        if let Some(standing) = self.advance(Some(Wanted { valid, due: &keys, request })) {
            self.tie_revisions(valid, survey);
            return standing;
        }
        // The run that has just ended may have made one of them done, and what follows it free.
        self.tie_revisions(valid, survey);
        let keys = due(survey, &self.status.done, requested);
        if keys.is_empty() {
            self.at_rest(valid, survey)
        } else {
            self.claim(Wanted { valid, due: &keys, request }, survey)
        }
    }

    /// Break-glass is shown for as long as it lasts, and told once.
    fn tell_open_gate(&mut self) {
        let shown = self.snapshot.status.conditions.iter().any(|condition| condition.type_ == GATE_OPEN);
        if self.snapshot.requests.open == shown {
            return;
        }
        let message = format!(
            "every Pod passes, migrated or not, while the Migrator is annotated {}: \"true\"",
            migrations_api::names::OPEN_ANNOTATION
        );
        let extra =
            self.snapshot.requests.open.then(|| Extra { reason: Reason::GateOpen, message: message.clone() });
        if extra.is_some() {
            self.events.push(Event {
                warning: true,
                reason: Reason::GateOpen,
                note: message,
                workload: None,
            });
        }
        self.extra.insert(GATE_OPEN, extra);
    }

    /// Has the Migrator looked at again after `pause`, or earlier.
    fn look_again_in(&mut self, pause: Duration) {
        self.look_again = Some(self.look_again.map_or(pause, |before| before.min(pause)));
    }

    /// Has the Migrator looked at again at that time.
    fn look_again_at(&mut self, at: Timestamp) {
        // A little later, so that the time has come by then.
        let pause = Duration::try_from(at.duration_since(self.now)).unwrap_or_default();
        self.look_again_in(pause + Duration::from_millis(50));
    }

    /// Tells what happened on the Migrator and on the workload of its run.
    fn tell(&mut self, warning: bool, reason: Reason, note: String) {
        self.events.push(Event { warning, reason, note, workload: self.status.source.clone() });
    }

    /// Counts, conditions, and what is trimmed.
    fn finish(mut self, survey: Option<&Survey<'_>>, standing: Standing) -> Plan {
        let snapshot = self.snapshot;
        if let Some(survey) = survey {
            self.count(survey);
            self.trim(survey);
        }
        self.status.observed_generation = snapshot.generation;
        self.status.conditions =
            conditions(&snapshot.status.conditions, &standing, &self.extra, snapshot.generation, self.now);
        let changed = self.status != snapshot.status;
        let told =
            self.failure_told && matches!(standing.reason, Reason::MigrationFailed | Reason::ResultUnknown);
        if standing.state == State::Stalled && standing_changed(snapshot, &standing) && !told {
            self.tell(true, standing.reason, standing.message);
        }
        // A Job that is refused must not keep what else is to be done from being done.
        self.effects.sort_by_key(|effect| matches!(effect, Effect::CreateJob(_) | Effect::StartJob { .. }));
        Plan {
            status: changed.then(|| Box::new(self.status)),
            effects: self.effects,
            events: self.events,
            look_again: self.look_again,
        }
    }

    /// Who waits, and who runs without having been held.
    fn count(&mut self, survey: &Survey<'_>) {
        let name = &self.snapshot.name;
        let count = |pods: usize| Some(i32::try_from(pods).unwrap_or(i32::MAX));
        let undone: Vec<_> =
            survey.members.iter().filter(|member| !member.released(&self.status.done)).collect();
        let lacking = survey.lacking.iter().filter(|pod| pod.gated_by(name)).count();
        self.status.waiting = count(undone.iter().filter(|member| member.waits(name)).count() + lacking);
        let ungated: Vec<_> = undone.iter().filter(|member| member.ungated(name)).collect();
        if let Some(member) = ungated.first().filter(|_| self.status.ungated.unwrap_or(0) == 0) {
            let note = format!(
                "{} of the selected Pods, {} for one, run or are about to without having been held: they are older \
                 than the gate; the migrations of {} are run for them all the same",
                ungated.len(),
                member.pod.name,
                member.origin.key
            );
            self.events.push(Event { warning: true, reason: Reason::Ungated, note, workload: None });
        }
        self.status.ungated = count(ungated.len());
        if !undone.is_empty() {
            self.look_again_in(LOOK_AGAIN);
        }
        if !survey.members.is_empty() {
            self.status.container = agreed_container(survey);
        }
    }
}

/// Whether this is news: another reason or message than the status had.
fn standing_changed(snapshot: &Snapshot, standing: &Standing) -> bool {
    let before = snapshot.status.conditions.iter().find(|condition| condition.type_ == READY);
    before.is_none_or(|it| it.reason != standing.reason.as_str() || it.message != standing.message)
}

/// The key container's name where it is the same in all templates: waiters of Pods that a service
/// mesh gave another first container are answered by it.
fn agreed_container(survey: &Survey<'_>) -> Option<String> {
    let mut names = survey.members.iter().map(|member| &member.origin.container);
    let first = names.next()?;
    names.all(|name| name == first).then(|| first.clone())
}
