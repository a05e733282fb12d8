//! Everything a decision may look at, as plain data. What can't be read is a value here, not an
//! error: a forbidden owner of one Pod must not stop the decision about another (contract §3).

mod container;
mod job;
mod pod;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use migrations_api::{Migrator, MigratorStatus, names};
use serde_json::Value;

pub use container::{ContainerFacts, ContainerState, Termination};
pub use job::{JobFacts, JobOutcome};
pub use pod::{Admitted, PodFacts};

/// One Migrator and its surroundings at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Namespace of the Migrator and of everything else here.
    pub namespace: String,
    /// Name of the Migrator.
    pub name: String,
    /// Uid of the Migrator.
    pub uid: String,
    /// Generation of its spec.
    pub generation: Option<i64>,
    /// Its status as last written.
    pub status: MigratorStatus,
    /// Pods that its selector matches, in any order.
    pub pods: Vec<PodFacts>,
    /// What the climb from those Pods has read.
    pub owners: Owners,
    /// Jobs that carry its run label, whoever made them.
    pub jobs: Vec<JobFacts>,
    /// Pods that carry its run label, whoever made them.
    pub run_pods: Vec<PodFacts>,
    /// Whether admission holds its Pods.
    pub gate: Gate,
    /// What the API server said when it refused the current run's Job or its start, where it did.
    pub create_refused: Option<String>,
    /// What the Job controller said when it could not make the current run's Pod, where it did.
    pub pod_refused: Option<PodRefused>,
    /// Persistent volume claims that Pod templates name, by name. One that is missing here could not
    /// be read.
    pub claims: BTreeMap<String, ClaimFacts>,
    /// What the Migrator's annotations ask for.
    pub requests: Requests,
    /// Locks, as far as they concern this Migrator.
    pub locks: Vec<LockFacts>,
    /// What the operator's administrator has settled.
    pub policy: Policy,
}

/// Why the Job controller can't make the Pod of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRefused {
    /// Uid of the Job.
    pub job_uid: String,
    /// The message of its newest event about that.
    pub message: String,
}

/// What a Migrator's annotations ask for (contract §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Token of the run that is asked for; each value once.
    pub run: Option<String>,
    /// Image that is to count as migrated.
    pub done: Option<String>,
    /// Let every Pod pass.
    pub open: bool,
}

/// What the operator's administrator has settled for all Migrators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Names of locks that hold for all namespaces.
    pub shared_locks: BTreeSet<String>,
    /// Keep the output of runs out of statuses, events and waiters' logs: it may hold secrets.
    pub hide_output: bool,
}

impl Policy {
    /// Name of the lease of a lock that a Migrator in `namespace` names.
    pub fn lease(&self, namespace: &str, lock: &str) -> String {
        let scope = (!self.shared_locks.contains(lock)).then_some(namespace);
        names::lock_lease(scope, lock)
    }
}

/// What decisions read of a persistent volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    /// How it may be used: `ReadWriteOnce`, `ReadWriteOncePod` and so on.
    pub access_modes: Vec<String>,
}

/// A lock's lease as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFacts {
    /// Name of the lease.
    pub lease: String,
    /// Its uid.
    pub uid: String,
    /// Its version: the precondition of a change.
    pub resource_version: String,
    /// Who holds it.
    pub holder: LockHolder,
    /// Whether the holder is gone with all of its runs.
    pub abandoned: bool,
}

/// The Migrator that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Whether the Migrator's webhook entry is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// New Pods are held.
    InPlace,
    /// The entry is about to be written; the text says what it waits for.
    Pending(String),
    /// No entry is written, since the API server can't reach the webhook; the text says what to open.
    Unreachable(String),
    /// The API server refused the entry, with these words.
    Refused(String),
    /// There will be no entry: admission leaves this namespace alone.
    Excluded,
}

/// A reference to a controlling owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef {
    /// API version of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name, in the Pod's namespace.
    pub name: String,
    /// Its uid, where the reference has one: another object of the same name is not this owner.
    pub uid: Option<String>,
}

/// Owners by reference, as read. `None`: it can't be read (gone, forbidden, of an unknown kind, or
/// another object of that name).
pub type Owners = BTreeMap<OwnerRef, Option<Value>>;

impl Snapshot {
    /// The token of the last run that was asked for: part of what tells runs apart, so that a new one
    /// starts afresh. It counts on when the annotation is taken away.
    pub fn request(&self) -> Option<&str> {
        self.requests.run.as_deref().or(self.status.last_handled_run.as_deref())
    }

    /// The Job of the current run, where it was let go `after` so long and has no Pod: its controller
    /// may have said why.
    pub fn podless_job(&self, now: Timestamp, after: SignedDuration) -> Option<&JobFacts> {
        let run = self.status.current.as_ref()?;
        let job = self.jobs.iter().find(|job| Some(&job.uid) == run.job_uid.as_ref())?;
        let let_go = !job.suspended && !job.terminating && job.outcome.is_none();
        let has_pod = self.run_pods.iter().any(|pod| pod.belongs_to(&job.uid));
        (let_go && !has_pod && now.duration_since(run.started.0) >= after).then_some(job)
    }

    /// Whether a run is asked for that no claim has taken up yet.
    pub fn run_requested(&self) -> bool {
        self.requests.run.is_some() && self.requests.run != self.status.last_handled_run
    }
}

impl Requests {
    /// Reads a Migrator's annotations.
    pub fn of(migrator: &Migrator) -> Self {
        let annotations = migrator.metadata.annotations.as_ref();
        let value = |name: &str| annotations.and_then(|all| all.get(name)).filter(|it| !it.is_empty());
        Self {
            run: value(names::RUN_ANNOTATION).cloned(),
            done: value(names::DONE_ANNOTATION).cloned(),
            open: value(names::OPEN_ANNOTATION).is_some_and(|value| value == "true"),
        }
    }
}

/// The controlling one of an object's owners.
pub fn controller_of(owners: Option<&[OwnerReference]>) -> Option<OwnerRef> {
    owners.unwrap_or_default().iter().find(|owner| owner.controller == Some(true)).map(|owner| OwnerRef {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: Some(owner.uid.clone()),
    })
}
