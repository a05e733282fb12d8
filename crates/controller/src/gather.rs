//! Reads what a decision may use. Pods, Jobs and Migrators come from the watches; before anything is
//! changed they are read again from the API server, so that nothing is done on an old view.

mod owners;

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::snapshot::{Gate, JobFacts, Owners, PodFacts, Snapshot};
use migrations_core::validate::Valid;

pub use owners::OwnerReader;

use crate::watch::jobs::JobWatch;
use crate::watch::pods::{PodWatches, Seen};
use crate::watch::runs::with_gone;
use crate::watch::slim::SlimPod;

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
        let container = valid.and_then(|valid| valid.container.as_deref());
        let owners = self.owners.of(&namespace, &matching, container).await?;
        let jobs = self.jobs.of(&namespace, &name);
        let snapshot = snapshot(migrator, matching, owners, jobs, of_runs, gate, create_refused);
        Ok(Some(Gathered { migrator: migrator.clone(), snapshot }))
    }

    /// The same surroundings with the Migrator and all of its runs read again: what exactly-once
    /// depends on. `None`: the Migrator is gone, or another of its name.
    pub async fn read_again(&self, before: Gathered) -> Result<Option<Gathered>, Error> {
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
        let jobs = Api::<Job>::namespaced(self.client.clone(), &before.namespace);
        let pods = Api::<SlimPod>::namespaced(self.client.clone(), &before.namespace);
        let jobs = jobs.list(&of_runs).await.map_err(Error::Jobs)?;
        let listed = pods.list(&of_runs).await.map_err(Error::RunPods)?;
        // What was seen before the list and isn't on it was deleted in between, or earlier.
        let run_pods = with_gone(listed.items.into_iter().map(|pod| pod.facts), before.run_pods);
        let snapshot = snapshot(
            &fresh,
            before.pods,
            before.owners,
            jobs.iter().map(JobFacts::from).collect(),
            run_pods,
            before.gate,
            before.create_refused,
        );
        Ok(Some(Gathered { migrator: fresh, snapshot }))
    }
}

fn snapshot(
    migrator: &Migrator,
    pods: Vec<PodFacts>,
    owners: Owners,
    jobs: Vec<JobFacts>,
    run_pods: Vec<PodFacts>,
    gate: Gate,
    create_refused: Option<String>,
) -> Snapshot {
    Snapshot {
        namespace: migrator.namespace().unwrap_or_default(),
        name: migrator.name_any(),
        uid: migrator.uid().unwrap_or_default(),
        generation: migrator.metadata.generation,
        status: migrator.status.clone().unwrap_or_default(),
        pods,
        owners,
        jobs,
        run_pods,
        gate,
        create_refused,
    }
}
