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
    /// What is remembered between looks: nothing that a restart may not forget.
    pub memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of one Migrator, by uid.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Why the API server refused the current run's Job.
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
    Ok(match executed? {
        Outcome::Done => {
            context.remember(&uid, Memory::default());
            plan.look_again.map_or_else(Action::await_change, Action::requeue)
        }
        Outcome::Outdated | Outcome::Interrupted => Action::requeue(SOON),
        Outcome::JobRefused(why) => {
            let news = context.remembered(&uid).create_refused.as_ref() != Some(&why);
            context.remember(&uid, Memory { create_refused: Some(why), faults: 0 });
            Action::requeue(if news { SOON } else { REFUSED })
        }
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
    tracing::warn!(
        name = guarded.name_any(),
        namespace = guarded.namespace(),
        error = causes(error),
        "a look at the Migrator failed; trying again in {pause:?}"
    );
    Action::requeue(pause)
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
