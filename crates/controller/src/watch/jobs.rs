//! The watch of Jobs that carry the run label, in all namespaces: few, and pruned like Pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use migrations_api::names;
use migrations_core::snapshot::JobFacts;
use migrations_process::probes::Part;

use super::labels::RunLabels;
use super::slim::SlimJob;
use super::{Queue, RunOf};

/// Runs' Jobs by name: what decisions read of them.
type Jobs = HashMap<RunOf, HashMap<String, JobFacts>>;

/// The Jobs of runs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct JobWatch(Arc<Mutex<Jobs>>);

impl JobWatch {
    /// The Jobs that carry the run label of `migrator`.
    pub fn of(&self, namespace: &str, migrator: &str) -> Vec<JobFacts> {
        let jobs = self.lock();
        let jobs = jobs.get(&RunOf::migrator(namespace, migrator));
        jobs.into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// Watches for as long as it is polled, and has the Migrator of each changed Job looked at.
    pub async fn run(self, client: Client, labels: RunLabels, queue: Queue, synced: Part) {
        let config = watcher::Config::default().labels(names::RUN_LABEL);
        let mut stream = std::pin::pin!(watch(Api::<SlimJob>::all(client), config).default_backoff());
        let mut listed = Jobs::new();
        let tell = |run_of: &RunOf| labels.tell(run_of, &queue);
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(job)) => {
                    if let Some((run_of, job)) = entry(job) {
                        listed.entry(run_of).or_default().insert(job.name.clone(), job);
                    }
                }
                Ok(Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    let before = std::mem::replace(&mut *self.lock(), listed);
                    // Those that had Jobs as well: theirs may be gone.
                    before.keys().for_each(tell);
                    self.lock().keys().for_each(tell);
                    synced.set(true);
                }
                Ok(Event::Apply(job)) => {
                    if let Some((run_of, job)) = entry(job) {
                        self.lock().entry(run_of.clone()).or_default().insert(job.name.clone(), job);
                        tell(&run_of);
                    }
                }
                Ok(Event::Delete(job)) => {
                    if let Some((run_of, job)) = entry(job) {
                        self.remove(&run_of, &job.name);
                        tell(&run_of);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the watch of Jobs was interrupted; trying again");
                }
            }
        }
    }

    fn remove(&self, run_of: &RunOf, job: &str) {
        let mut all = self.lock();
        if let Some(jobs) = all.get_mut(run_of) {
            jobs.remove(job);
            if jobs.is_empty() {
                all.remove(run_of);
            }
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(job: SlimJob) -> Option<(RunOf, JobFacts)> {
    let label = job.facts.run_of.clone()?;
    Some((RunOf { namespace: job.namespace()?, label }, job.facts))
}
