//! What a decision asks for. A plan leaves execution no choices: the status is written first, then
//! the effects follow in order, and the first that fails ends it, unless the others can do without it.
//! Whatever is left undone is asked for again by the next decision.

use std::time::Duration;

use migrations_api::{MigratorStatus, Reason, Source};
use serde_json::Value;

/// What to do about one Migrator now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The status to write, where it differs from the one that was read. Precondition: uid and
    /// resourceVersion of the Migrator as read.
    pub status: Option<Box<MigratorStatus>>,
    /// What to do after that, in order.
    pub effects: Vec<Effect>,
    /// What to tell once all is done.
    pub events: Vec<Event>,
    /// When to look again without being told.
    pub look_again: Option<Duration>,
}

/// One change. The object's uid is the precondition wherever it exists already.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Create it, suspended. That one of this name exists is an outcome: the next decision looks
    /// whose it is.
    CreateJob(Box<Value>),
    /// Let it run.
    StartJob {
        /// Its name.
        name: String,
        /// Its uid, as bound in the status.
        uid: String,
        /// Its version, as read.
        resource_version: String,
    },
    /// Delete it with its Pods. That it is gone is an outcome.
    DeleteJob {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Its version, as read, where it must not have been started since.
        resource_version: Option<String>,
    },
    /// End what is left in a run's Pod, and keep its logs.
    EndPod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Delete a Pod whose application never started, so that its controller makes a new one. That it
    /// is gone is an outcome.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// Take a lock for this Migrator. That somebody else was faster is an outcome.
    TakeLock {
        /// Name of the lease.
        lease: String,
        /// The lease as it was found: one without a living holder.
        found: Option<LeaseVersion>,
    },
    /// Give a lock back.
    ReleaseLock {
        /// Name of the lease.
        lease: String,
        /// The lease as it was found.
        found: LeaseVersion,
    },
}

/// What a change of a lease depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseVersion {
    /// Its uid.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
}

/// Something users should see in `kubectl describe` and `kubectl get events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A warning; else all is well.
    pub warning: bool,
    /// Why, from the one list of reasons.
    pub reason: Reason,
    /// What happened, for a person.
    pub note: String,
    /// The workload that it is told on as well.
    pub workload: Option<Source>,
}

impl Effect {
    /// Whether the rest of its plan goes on when it fails: a policy that keeps what is left over from being
    /// deleted must not keep a migration from starting. Nothing that starts a run counts on such an effect
    /// of the same plan: a Job is created suspended and under a name of its own, which one that exists
    /// refuses; and it is started where the facts, read before the plan was made, show no other run's Pod or
    /// Job at work. What a decision deletes before it goes on (a leftover of the run's own name, the Job of a
    /// run that is given up) it waits to see gone.
    pub fn is_best_effort(&self) -> bool {
        matches!(self, Self::DeleteJob { .. } | Self::EndPod { .. } | Self::DeletePod { .. })
    }
}

impl Event {
    /// Whether it tells of what an effect does, not of what the status says: a migration that starts, a Pod
    /// that is deleted. As long as that fails it is in each new plan.
    pub fn of_effect(&self) -> bool {
        match self.reason {
            Reason::Running => true,
            Reason::Superseded => !self.warning,
            _ => false,
        }
    }
}

impl Plan {
    /// Whether it changes anything but the status' view of things: such plans are made again from
    /// fresh reads before they are executed.
    pub fn acts(&self) -> bool {
        self.status.is_some() || !self.effects.is_empty()
    }
}
