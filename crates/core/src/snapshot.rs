//! Everything a decision may look at, as plain data. What can't be read is a value here, not an
//! error: a forbidden owner of one Pod must not stop the decision about another (contract §3).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use migrations_api::{Migrator, MigratorStatus, names};
use migrations_protocol::{Arguments, Container};
use serde_json::Value;

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
    /// What the API server said when it refused the current run's Job, where it did.
    pub create_refused: Option<String>,
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
    /// There will be no entry: admission leaves this namespace alone.
    Excluded,
}

/// What decisions read of a Pod. The rest, most of its size, is dropped on arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its controlling owner.
    pub owner: Option<OwnerRef>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
    /// Its phase: Pending, Running, Succeeded, Failed or Unknown.
    pub phase: String,
    /// Its own containers, in order.
    pub containers: Vec<ContainerFacts>,
    /// Its init containers, in order.
    pub init_containers: Vec<ContainerFacts>,
    /// Annotated to start without waiting.
    pub no_wait: bool,
    /// Why it isn't scheduled, in the scheduler's words.
    pub unschedulable: Option<String>,
    /// The node it is bound to.
    pub node: Option<String>,
    /// Names of the persistent volume claims that it mounts.
    pub claims: Vec<String>,
    /// What admission wrote into its waiters: the Pod as it was created, whatever became of it.
    pub admitted: Option<Admitted>,
    /// It no longer exists; this is its last state.
    pub gone: bool,
}

/// A Pod as it was when admission saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its containers and their images.
    pub containers: Vec<Container>,
    /// Its revision.
    pub revision: Option<String>,
}

/// What decisions read of a container and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Its image, as in the Pod's spec.
    pub image: String,
    /// Where it is.
    pub state: ContainerState,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started yet; the kubelet's reason and message where it gave any.
    Waiting(String),
    /// Running, since when.
    Running(Option<Timestamp>),
    /// Ended.
    Terminated(Termination),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Its exit code; 0 is success.
    pub exit_code: i32,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Its last output, or its reason where there is none.
    pub message: String,
}

/// What decisions read of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its version: the precondition of a change.
    pub resource_version: String,
    /// Uid of its controlling owner.
    pub owner_uid: Option<String>,
    /// The key annotation.
    pub key: Option<String>,
    /// The attempt annotation.
    pub attempt: Option<String>,
    /// The hash annotation.
    pub run_hash: Option<String>,
    /// Not started yet, or stopped.
    pub suspended: bool,
    /// Being deleted.
    pub terminating: bool,
    /// How it ended, if it did.
    pub outcome: Option<JobOutcome>,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// How a Job ended, in the words of its condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobOutcome {
    /// Condition `Complete`.
    Complete,
    /// Condition `Failed`, with its message.
    Failed(String),
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

impl PodFacts {
    /// Whether it may still run something.
    pub fn unfinished(&self) -> bool {
        !self.gone && self.phase != "Succeeded" && self.phase != "Failed"
    }

    /// Whether it is there to serve: neither finished nor on its way out.
    pub fn live(&self) -> bool {
        self.unfinished() && !self.terminating
    }

    /// Whether one of its own containers has started.
    pub fn application_started(&self) -> bool {
        self.containers.iter().any(|container| !matches!(container.state, ContainerState::Waiting(_)))
    }

    /// Whether it carries this Migrator's waiter.
    pub fn gated_by(&self, migrator: &str) -> bool {
        let waiter = names::waiter_container(migrator);
        self.init_containers.iter().any(|container| container.name == waiter)
    }

    /// The key container: the named one, else the first.
    pub fn key_container(&self, name: Option<&str>) -> Option<&ContainerFacts> {
        match name {
            Some(name) => self.containers.iter().find(|container| container.name == name),
            None => self.containers.first(),
        }
    }
}

impl From<&Pod> for PodFacts {
    fn from(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let statuses = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let init_statuses =
            status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
        let facts = |containers: &[k8s_openapi::api::core::v1::Container], statuses: &[ContainerStatus]| {
            let one = |container: &k8s_openapi::api::core::v1::Container| ContainerFacts {
                name: container.name.clone(),
                image: container.image.clone().unwrap_or_default(),
                state: statuses
                    .iter()
                    .find(|status| status.name == container.name)
                    .map_or_else(|| ContainerState::Waiting(String::new()), ContainerState::from),
            };
            containers.iter().map(one).collect::<Vec<_>>()
        };
        let annotations = meta.annotations.as_ref();
        let unschedulable = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|all| all.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False"))
            .map(|condition| condition.message.clone().unwrap_or_default());
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            owner: controller_of(meta.owner_references.as_deref()),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            terminating: meta.deletion_timestamp.is_some(),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            containers: facts(spec.map(|spec| spec.containers.as_slice()).unwrap_or_default(), statuses),
            init_containers: facts(
                spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default(),
                init_statuses,
            ),
            no_wait: annotations
                .and_then(|all| all.get(names::NO_WAIT_ANNOTATION))
                .is_some_and(|value| value == "true"),
            unschedulable,
            node: spec.and_then(|spec| spec.node_name.clone()),
            claims: claims(spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()),
            admitted: admitted(spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()),
            gone: false,
        }
    }
}

fn claims(volumes: &[Volume]) -> Vec<String> {
    let claims = volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.clone()).collect()
}

/// All waiters of a Pod were told the same of it.
fn admitted(init_containers: &[k8s_openapi::api::core::v1::Container]) -> Option<Admitted> {
    let waiter = init_containers.iter().find(|container| container.name.starts_with(names::WAITER_PREFIX))?;
    let Arguments { containers, revision, .. } = Arguments::parse(waiter.args.as_deref()?).ok()?;
    Some(Admitted { containers, revision })
}

impl From<&ContainerStatus> for ContainerState {
    fn from(status: &ContainerStatus) -> Self {
        // A container that was restarted has started, whatever it waits for now.
        let last = status.last_state.as_ref();
        let terminated = status
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref())
            .or_else(|| last.and_then(|state| state.terminated.as_ref()));
        if let Some(running) = status.state.as_ref().and_then(|state| state.running.as_ref()) {
            return Self::Running(running.started_at.as_ref().map(|time| time.0));
        }
        if let Some(end) = terminated {
            let said = end.message.as_deref().or(end.reason.as_deref()).unwrap_or_default();
            return Self::Terminated(Termination {
                exit_code: end.exit_code,
                started: end.started_at.as_ref().map(|time| time.0),
                finished: end.finished_at.as_ref().map(|time| time.0),
                message: said.to_owned(),
            });
        }
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let said = waiting.map(|waiting| {
            [waiting.reason.as_deref(), waiting.message.as_deref()].into_iter().flatten().collect::<Vec<_>>()
        });
        Self::Waiting(said.unwrap_or_default().join(": "))
    }
}

impl From<&Job> for JobFacts {
    fn from(job: &Job) -> Self {
        let meta = &job.metadata;
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref());
        let ended = conditions.unwrap_or_default().iter().find_map(|condition| {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => Some(JobOutcome::Complete),
                ("Failed", "True") => Some(JobOutcome::Failed(condition.message.clone().unwrap_or_default())),
                _ => None,
            }
        });
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owner_uid: controller_of(meta.owner_references.as_deref()).and_then(|owner| owner.uid),
            key: annotation(names::KEY_ANNOTATION),
            attempt: annotation(names::ATTEMPT_ANNOTATION),
            run_hash: annotation(names::RUN_HASH_ANNOTATION),
            suspended: job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or(false),
            terminating: meta.deletion_timestamp.is_some(),
            outcome: ended,
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
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
