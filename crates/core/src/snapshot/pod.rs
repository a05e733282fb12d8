//! What decisions read of Pods. The rest, most of their size, is dropped on arrival.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use migrations_api::names;
use migrations_protocol::{Arguments, Container, RELEASED_ANNOTATION};

use super::{ContainerFacts, OwnerRef, controller_of};

/// What decisions read of a Pod. The rest, most of its size, is dropped on arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "facts, each true or not whatever the others are")]
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
    /// Marked as released: this very Pod, not one that the mark was copied from.
    pub released: bool,
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
        self.containers.iter().any(|container| container.state.has_started())
    }

    /// Whether it carries this Migrator's waiter.
    pub fn gated_by(&self, migrator: &str) -> bool {
        let waiter = names::waiter_container(migrator);
        self.init_containers.iter().any(|container| container.name == waiter)
    }

    /// Whether it was made by the Job of that uid.
    pub fn belongs_to(&self, job_uid: &str) -> bool {
        self.owner.as_ref().and_then(|owner| owner.uid.as_deref()) == Some(job_uid)
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
        let facts = |containers: &[k8s_openapi::api::core::v1::Container], statuses| {
            containers.iter().map(|it| ContainerFacts::read(it, statuses)).collect::<Vec<_>>()
        };
        let annotated =
            |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
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
            no_wait: annotated(names::NO_WAIT_ANNOTATION) == Some("true"),
            released: meta.uid.is_some() && annotated(RELEASED_ANNOTATION) == meta.uid.as_deref(),
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
