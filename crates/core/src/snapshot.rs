//! Everything a decision may look at, as plain data. What can't be read is a value here, not an
//! error: a forbidden owner of one Pod must not stop the decision about another (contract §3).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use migrations_api::{MigratorStatus, names};
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// It no longer exists; this is its last state.
    pub gone: bool,
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
            gone: false,
        }
    }
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
