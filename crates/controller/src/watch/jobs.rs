//! The watch of Jobs that carry the run label, in all namespaces: few, and pruned like Pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use migrations_api::names;
use migrations_core::snapshot::JobFacts;
use migrations_process::probes::Part;

use super::{Guarded, Queue};

/// A run's Job: its namespace and name, the value of its run label, and what decisions read of it.
type Jobs = HashMap<(String, String), (String, JobFacts)>;

/// The Jobs of runs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct JobWatch(Arc<Mutex<Jobs>>);

impl JobWatch {
    /// The Jobs that carry the run label of `migrator`.
    pub fn of(&self, namespace: &str, migrator: &str) -> Vec<JobFacts> {
        let label = names::label_value(migrator);
        self.lock()
            .iter()
            .filter(|((of, _), (carried, _))| of == namespace && *carried == label)
            .map(|(_, (_, job))| job.clone())
            .collect()
    }

    /// Watches for as long as it is polled, and has the Migrator of each changed Job looked at.
    pub async fn run(self, client: Client, migrators: Store<Guarded>, queue: Queue, synced: Part) {
        let config = watcher::Config::default().labels(names::RUN_LABEL);
        let mut stream = std::pin::pin!(watch(Api::<Job>::all(client), config).default_backoff());
        let mut listed = Jobs::new();
        let tell = |namespace: &str, label: &str| {
            for migrator in migrators.state() {
                let name = migrator.name_any();
                if migrator.namespace().as_deref() == Some(namespace) && names::label_value(&name) == label {
                    queue.push(namespace, &name);
                }
            }
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(job)) => listed.extend(entry(&job)),
                Ok(Event::InitDone) => {
                    self.lock().clone_from(&listed);
                    for ((namespace, _), (label, _)) in listed.drain() {
                        tell(&namespace, &label);
                    }
                    synced.set(true);
                }
                Ok(Event::Apply(job)) => {
                    if let Some((key, value)) = entry(&job) {
                        self.lock().insert(key.clone(), value.clone());
                        tell(&key.0, &value.0);
                    }
                }
                Ok(Event::Delete(job)) => {
                    if let Some((key, value)) = entry(&job) {
                        self.lock().remove(&key);
                        tell(&key.0, &value.0);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the watch of Jobs was interrupted; trying again");
                }
            }
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(job: &Job) -> Option<((String, String), (String, JobFacts))> {
    let label = job.labels().get(names::RUN_LABEL)?.clone();
    Some(((job.namespace()?, job.name_any()), (label, JobFacts::from(job))))
}
