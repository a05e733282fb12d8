//! From where a Migrator stands to its conditions (contract §6): kstatus rules, one table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use migrations_api::conditions::{MIGRATIONS_READY, READY, RECONCILING, STALLED};
use migrations_api::{Reason, condition};

/// Where a Migrator stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which of the three there are.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// What the conditions are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Ready,
    /// The operator is at work.
    Reconciling,
    /// Someone has to act.
    Stalled,
}

impl Standing {
    /// All is well.
    pub fn ready(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::Ready, reason, message: message.into() }
    }

    /// The operator is at work.
    pub fn reconciling(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::Reconciling, reason, message: message.into() }
    }

    /// Someone has to act.
    pub fn stalled(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::Stalled, reason, message: message.into() }
    }
}

/// A condition beside the usual ones: true while it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Why.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
}

/// The conditions of a Migrator that stands so. By kstatus' rules the abnormal ones are there only
/// while they are true. Those of `extra` are set or taken away, others kept.
pub fn conditions(
    before: &[Condition],
    standing: &Standing,
    extra: &BTreeMap<&'static str, Option<Extra>>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let Standing { state, reason, message } = standing;
    let make = |kind, status| condition(before, kind, status, *reason, message, generation, now);
    let ready = *state == State::Ready;
    let mut conditions = vec![make(READY, ready), make(MIGRATIONS_READY, ready)];
    match state {
        State::Ready => {}
        State::Reconciling => conditions.push(make(RECONCILING, true)),
        State::Stalled => conditions.push(make(STALLED, true)),
    }
    let ours = [READY, MIGRATIONS_READY, RECONCILING, STALLED];
    let kept = |it: &&Condition| {
        let kind = it.type_.as_str();
        !ours.contains(&kind) && !extra.contains_key(kind)
    };
    conditions.extend(before.iter().filter(kept).cloned());
    for (kind, extra) in extra {
        let Some(Extra { reason, message }) = extra else { continue };
        conditions.push(condition(before, kind, true, *reason, message, generation, now));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::ready(State::Ready, &["Ready=True", "MigrationsReady=True"])]
    #[case::at_work(State::Reconciling, &["Ready=False", "MigrationsReady=False", "Reconciling=True"])]
    #[case::needs_someone(State::Stalled, &["Ready=False", "MigrationsReady=False", "Stalled=True"])]
    fn abnormal_conditions_are_there_only_while_true(#[case] state: State, #[case] expected: &[&str]) {
        let standing = Standing { state, reason: Reason::Running, message: String::new() };
        let made = conditions(&[], &standing, &BTreeMap::new(), Some(3), Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = made.iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
        assert_eq!(shown, expected);
        assert!(made.iter().all(|c| c.observed_generation == Some(3)));
    }

    #[test]
    fn the_transition_time_stays_while_the_status_does() {
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let first =
            conditions(&[], &Standing::reconciling(Reason::Pending, ""), &BTreeMap::new(), None, early);
        let second =
            conditions(&first, &Standing::reconciling(Reason::Running, "x"), &BTreeMap::new(), None, late);
        let third = conditions(&second, &Standing::ready(Reason::UpToDate, ""), &BTreeMap::new(), None, late);
        assert!(second.iter().all(|c| c.last_transition_time.0 == early));
        assert!(third.iter().all(|c| c.last_transition_time.0 == late));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let other = condition(&[], "Audited", true, Reason::Idle, "", None, Timestamp::UNIX_EPOCH);
        let made =
            conditions(&[other], &Standing::ready(Reason::Idle, ""), &BTreeMap::new(), None, Timestamp::MAX);
        assert!(made.iter().any(|c| c.type_ == "Audited"));
    }
}
