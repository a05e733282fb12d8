//! Reads what a decision may use. Pods, Jobs and Migrators come from the watches; before anything is
//! changed they are read again from the API server, so that nothing is done on an old view.

mod claims;
mod events;
mod locks;
mod owners;

use std::collections::BTreeMap;

use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::snapshot::{Gate, Owners, Policy, Requests, Snapshot};
use migrations_core::validate::Valid;

pub use claims::claims;
pub use owners::OwnerReader;

use crate::locks::Locks;
use crate::watch::Guarded;
use crate::watch::jobs::JobWatch;
use crate::watch::locks::LockWatch;
use crate::watch::pods::{PodWatches, Seen};
use crate::watch::runs::with_gone;
use crate::watch::slim::{SlimJob, SlimPod};

/// Something could not be read that a decision can't do without.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Migrator itself.
    #[error("cannot read the Migrator again")]
    Migrator(#[source] kube::Error),
    /// Its Jobs.
    #[error("cannot list the Jobs of its runs")]
    Jobs(#[source] kube::Error),
    /// Its runs' Pods.
    #[error("cannot list the Pods of its runs")]
    RunPods(#[source] kube::Error),
    /// Events of its run's Job.
    #[error("cannot list the events of its run's Job")]
    Events(#[source] kube::Error),
    /// Its lock.
    #[error("cannot read the lock")]
    Lock(#[source] kube::Error),
    /// An owner of a Pod, for a reason that may pass.
    #[error("cannot read {kind} {name}")]
    Owner {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// A claim that a Pod template names, for a reason that may pass.
    #[error("cannot read PersistentVolumeClaim {name}")]
    Claim {
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
}

/// A Migrator as read, and its surroundings.
pub struct Gathered {
    /// The Migrator.
    pub migrator: Migrator,
    /// Its surroundings.
    pub snapshot: Snapshot,
}

/// Where a decision's facts come from.
pub struct Gatherer {
    /// For what isn't watched.
    pub client: Client,
    /// The watches of Pods.
    pub pods: PodWatches,
    /// The watch of Jobs.
    pub jobs: JobWatch,
    /// Reads owners.
    pub owners: OwnerReader,
    /// All Migrators.
    pub migrators: Store<Guarded>,
    /// Reads locks.
    pub locks: Locks,
    /// The watch of locks.
    pub lock_watch: LockWatch,
    /// What the operator's administrator has settled.
    pub policy: Policy,
}

impl Gatherer {
    /// The surroundings as watched. `None` while the Pods of the namespace are not listed yet.
    pub async fn watched(
        &self,
        migrator: &Migrator,
        valid: Option<&Valid>,
        gate: Gate,
        create_refused: Option<String>,
    ) -> Result<Option<Gathered>, Error> {
        let (namespace, name) = (migrator.namespace().unwrap_or_default(), migrator.name_any());
        let seen = match valid {
            Some(valid) => self.pods.of(&namespace, &name, &valid.selector),
            None => Some(Seen { matching: Vec::new(), of_runs: Vec::new() }),
        };
        let Some(Seen { matching, of_runs }) = seen else { return Ok(None) };
        let mut snapshot = Snapshot {
            uid: migrator.uid().unwrap_or_default(),
            generation: migrator.metadata.generation,
            status: migrator.status.clone().unwrap_or_default(),
            pods: matching,
            owners: Owners::new(),
            jobs: self.jobs.of(&namespace, &name),
            run_pods: of_runs,
            gate,
            create_refused,
            pod_refused: None,
            claims: BTreeMap::new(),
            requests: Requests::of(migrator),
            locks: Vec::new(),
            policy: self.policy.clone(),
            namespace,
            name,
        };
        snapshot.locks = self.watched_locks(&snapshot, valid);
        snapshot.pod_refused = self.pod_refused(&snapshot).await?;
        if let Some(valid) = valid {
            self.owners.read_into(&mut snapshot, valid).await?;
        }
        Ok(Some(Gathered { migrator: migrator.clone(), snapshot }))
    }

    /// The same surroundings with the Migrator and all of its runs read again: what exactly-once
    /// depends on. `None`: the Migrator is gone, or another of its name.
    pub async fn read_again(
        &self,
        before: Gathered,
        valid: Option<&Valid>,
    ) -> Result<Option<Gathered>, Error> {
        let Gathered { migrator, snapshot: before } = before;
        let api = Api::<Migrator>::namespaced(self.client.clone(), &before.namespace);
        let read = api.get_opt(&before.name).await.map_err(Error::Migrator)?;
        let Some(fresh) = read.filter(|fresh| fresh.uid() == migrator.uid()) else { return Ok(None) };
        // Another spec has other Pods: its own event brings them.
        if fresh.spec != migrator.spec {
            return Ok(None);
        }
        let label = format!("{}={}", names::RUN_LABEL, names::label_value(&before.name));
        let of_runs = ListParams::default().labels(&label);
        let jobs = Api::<SlimJob>::namespaced(self.client.clone(), &before.namespace);
        let pods = Api::<SlimPod>::namespaced(self.client.clone(), &before.namespace);
        let mut all_jobs: Vec<_> =
            jobs.list(&of_runs).await.map_err(Error::Jobs)?.into_iter().map(|job| job.facts).collect();
        // The name of the run's Job may be that of somebody else's, which lacks the label.
        let claimed = fresh.status.as_ref().and_then(|status| status.current.as_ref());
        if let Some(run) = claimed.filter(|run| !all_jobs.iter().any(|job| job.name == run.job)) {
            let named = jobs.get_opt(&run.job).await.map_err(Error::Jobs)?;
            all_jobs.extend(named.map(|job| job.facts));
        }
        let listed = pods.list(&of_runs).await.map_err(Error::RunPods)?;
        let locks = self.read_locks(&before, valid).await?;
        let claims = claims(&self.client, &before.namespace, &before.owners).await?;
        let snapshot = Snapshot {
            generation: fresh.metadata.generation,
            status: fresh.status.clone().unwrap_or_default(),
            jobs: all_jobs,
            // What was seen before the list and isn't on it was deleted in between, or earlier.
            run_pods: with_gone(listed.items.into_iter().map(|pod| pod.facts), before.run_pods),
            requests: Requests::of(&fresh),
            locks,
            claims,
            ..before
        };
        Ok(Some(Gathered { migrator: fresh, snapshot }))
    }
}
