//! One look at one Migrator: gather, validate, decide, execute, report.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use migrations_core::decide::decide;
use migrations_core::validate::validate;
use migrations_process::telemetry::causes;

use crate::execute::{self, Executor, Outcome};
use crate::gate::Gates;
use crate::gather::{self, Gatherer};
use crate::metrics::Metrics;
use crate::report::Report;
use crate::watch::Guarded;

/// Pause before a look that another writer's change made necessary. Its event usually comes first.
const SOON: Duration = Duration::from_millis(200);

/// Pause before a Job that the API server refused is tried again.
const REFUSED: Duration = Duration::from_secs(10);

/// Shortest and longest pause after a fault.
const FAULT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A look that could not be finished; it is repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Facts are missing.
    #[error(transparent)]
    Gather(#[from] gather::Error),
    /// A write failed.
    #[error(transparent)]
    Execute(#[from] execute::Error),
}

/// What a look needs.
pub struct Context {
    /// Carries out plans.
    pub executor: Executor,
    /// For facts.
    pub gatherer: Gatherer,
    /// Which Migrators' Pods are held.
    pub gates: Gates,
    /// Where outcomes are told.
    pub report: Report,
    /// Where failures are counted.
    pub metrics: Metrics,
    /// What is remembered between looks: nothing that a restart may not forget.
    pub memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of one Migrator, by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Why the API server refused the current run's Job or its start.
    create_refused: Option<String>,
    /// How many looks in a row have failed.
    faults: u32,
}

/// Looks at one Migrator.
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let migrator = match &guarded.0 {
        Ok(migrator) if migrator.metadata.deletion_timestamp.is_none() => migrator,
        // Its Jobs go with it, by their owner reference.
        Ok(_) => return Ok(Action::await_change()),
        Err(error) => {
            context.report.undecodable(&guarded, &error.error).await;
            return Ok(Action::await_change());
        }
    };
    let uid = migrator.uid().unwrap_or_default();
    let validated = validate(&migrator.spec);
    let (gate, refused) = (context.gates.of(migrator), context.remembered(&uid).create_refused);
    let gathered = context.gatherer.watched(migrator, validated.as_ref().ok(), gate, refused).await?;
    let Some(gathered) = gathered else { return Ok(Action::await_change()) };
    let plan = decide(validated.as_ref(), &gathered.snapshot, Timestamp::now());
    if !plan.acts() {
        return Ok(plan.look_again.map_or_else(Action::await_change, Action::requeue));
    }

    let Some(gathered) = context.gatherer.read_again(gathered, validated.as_ref().ok()).await? else {
        return Ok(Action::requeue(SOON));
    };
    let plan = decide(validated.as_ref(), &gathered.snapshot, Timestamp::now());
    let executed = context.executor.execute(&gathered.migrator, &plan).await;
    context.report.outcome(&gathered.migrator, &plan, &executed).await;
    let before = context.remembered(&uid);
    context.remember(&uid, before.clone().after(&executed));
    Ok(match executed? {
        Outcome::Done => plan.look_again.map_or_else(Action::await_change, Action::requeue),
        Outcome::JobRefused(why) if before.create_refused.as_ref() == Some(&why) => Action::requeue(REFUSED),
        // A refusal that is news is for the next look to show.
        Outcome::JobRefused(_) | Outcome::Outdated | Outcome::Interrupted => Action::requeue(SOON),
    })
}

/// When to look again after a fault.
#[allow(clippy::needless_pass_by_value, reason = "the signature that kube calls")]
pub fn after_fault(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let uid = guarded.uid().unwrap_or_default();
    let mut memory = context.remembered(&uid);
    let (shortest, longest) = FAULT;
    let pause = shortest.saturating_mul(1 << memory.faults.min(10)).min(longest);
    memory.faults = memory.faults.saturating_add(1);
    context.remember(&uid, memory);
    context.metrics.look_failed();
    tracing::warn!(
        name = guarded.name_any(),
        namespace = guarded.namespace(),
        error = causes(error),
        "a look at the Migrator failed; trying again in {pause:?}"
    );
    Action::requeue(pause)
}

impl Memory {
    /// Once a plan was carried out, as far as that went. Faults are counted where they are told.
    fn after(self, executed: &Result<Outcome, execute::Error>) -> Self {
        match executed {
            Ok(Outcome::Done) => Self::default(),
            Ok(Outcome::JobRefused(why)) => Self { create_refused: Some(why.clone()), faults: 0 },
            // All but the deletion is done: a Job that was to be created is there.
            Err(execute::Error::Delete(..) | execute::Error::Pod(..)) => {
                Self { create_refused: None, ..self }
            }
            Ok(Outcome::Outdated | Outcome::Interrupted) | Err(_) => self,
        }
    }
}

impl Context {
    fn remembered(&self, uid: &str) -> Memory {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(uid).cloned().unwrap_or_default()
    }

    fn remember(&self, uid: &str, memory: Memory) {
        let mut all = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.create_refused.is_none() && memory.faults == 0 {
            all.remove(uid);
        } else {
            all.insert(uid.to_owned(), memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn no() -> kube::Error {
        kube::Error::Api(kube::core::Status::failure("no", "Forbidden").boxed())
    }

    #[rstest]
    #[case::all_done(Ok(Outcome::Done), None, 0)]
    #[case::changed_meanwhile(Ok(Outcome::Outdated), Some("quota"), 2)]
    #[case::refused_for_another_reason(Ok(Outcome::JobRefused("policy".to_owned())), Some("policy"), 0)]
    #[case::nobody_knows_of_the_job(Err(execute::Error::Create("shop-1".to_owned(), no())), Some("quota"), 2)]
    #[case::job_created_and_another_not_deleted(Err(execute::Error::Delete("old".to_owned(), no())), None, 2)]
    fn a_refusal_is_remembered_until_the_job_is_there(
        #[case] executed: Result<Outcome, execute::Error>,
        #[case] create_refused: Option<&str>,
        #[case] faults: u32,
    ) {
        let before = Memory { create_refused: Some("quota".to_owned()), faults: 2 };
        let expected = Memory { create_refused: create_refused.map(str::to_owned), faults };
        assert_eq!(before.after(&executed), expected);
    }
}
