//! The watch of runs' Pods, in all namespaces. The last state of a deleted one is kept for a while:
//! it may hold the only proof of how its container ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use migrations_api::names;
use migrations_core::snapshot::PodFacts;

use super::labels::RunLabels;
use super::slim::SlimPod;
use super::{Queue, RunOf};

/// How many deleted Pods are kept of one Migrator's runs.
const MOST_GONE: usize = 4;

/// How long a deleted Pod is kept.
const LONGEST_GONE: SignedDuration = SignedDuration::from_mins(10);

/// The Pods of runs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RunWatch(Arc<Mutex<Runs>>);

impl RunWatch {
    /// The Pods of runs of `migrator`, those deleted of late included. `None` while they are not
    /// listed yet; the Migrators that have any are queued once they are.
    pub fn of(&self, namespace: &str, migrator: &str) -> Option<Vec<PodFacts>> {
        self.lock().of(&RunOf::migrator(namespace, migrator), Timestamp::now())
    }

    /// Forgets the deleted Pods of a Migrator that is gone.
    pub fn forget(&self, namespace: &str, migrator: &str) {
        self.lock().gone.remove(&RunOf::migrator(namespace, migrator));
    }

    /// Watches for as long as it is polled, and has the Migrator of each changed Pod looked at.
    pub async fn run(self, client: Client, labels: RunLabels, queue: Queue) {
        let config = watcher::Config::default().labels(names::RUN_LABEL);
        let mut stream = std::pin::pin!(watch(Api::<SlimPod>::all(client), config).default_backoff());
        let mut listed = Vec::new();
        let tell = |run_of: &RunOf| labels.tell(run_of, &queue);
        while let Some(event) = stream.next().await {
            let now = Timestamp::now();
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => listed.extend(entry(pod)),
                Ok(Event::InitDone) => {
                    if self.lock().replace(std::mem::take(&mut listed), now) {
                        // Every look so far has waited for this.
                        labels.tell_all(&queue);
                    } else {
                        self.lock().pods.keys().for_each(tell);
                    }
                }
                Ok(Event::Apply(pod)) => {
                    if let Some((run_of, pod)) = entry(pod)
                        && self.lock().apply(&run_of, pod)
                    {
                        tell(&run_of);
                    }
                }
                Ok(Event::Delete(pod)) => {
                    if let Some((run_of, pod)) = entry(pod) {
                        self.lock().delete(&run_of, pod, now);
                        tell(&run_of);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the watch of runs' Pods was interrupted; trying again");
                }
            }
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry(pod: SlimPod) -> Option<(RunOf, PodFacts)> {
    let label = pod.facts.labels.get(names::RUN_LABEL)?;
    Some((RunOf { namespace: pod.namespace()?, label: label.clone() }, pod.facts))
}

/// The Pods of a live list, and those seen before it that it lacks, as gone.
pub fn with_gone(listed: impl Iterator<Item = PodFacts>, before: Vec<PodFacts>) -> Vec<PodFacts> {
    let mut pods: Vec<_> = listed.collect();
    let gone: Vec<_> = before.into_iter().filter(|it| pods.iter().all(|pod| pod.uid != it.uid)).collect();
    pods.extend(gone.into_iter().map(|pod| PodFacts { gone: true, ..pod }));
    pods
}

/// What the watch has seen: Pods by uid, and the last states of deleted ones, oldest first.
#[derive(Debug, Default)]
struct Runs {
    listed: bool,
    pods: HashMap<RunOf, HashMap<String, PodFacts>>,
    gone: HashMap<RunOf, Vec<Gone>>,
}

#[derive(Debug)]
struct Gone {
    since: Timestamp,
    pod: PodFacts,
}

impl Gone {
    fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) < LONGEST_GONE
    }
}

impl Runs {
    fn of(&self, run_of: &RunOf, now: Timestamp) -> Option<Vec<PodFacts>> {
        let there = self.pods.get(run_of).into_iter().flat_map(HashMap::values);
        let gone = self.gone.get(run_of).into_iter().flatten().filter(|gone| gone.is_recent(now));
        self.listed.then(|| there.chain(gone.map(|gone| &gone.pod)).cloned().collect())
    }

    /// Takes up a Pod; whether that changed anything.
    fn apply(&mut self, run_of: &RunOf, pod: PodFacts) -> bool {
        let pods = self.pods.entry(run_of.clone()).or_default();
        if pods.get(&pod.uid) == Some(&pod) {
            return false;
        }
        // A newer run has read what was to be read of those before it.
        if let Some(gone) = self.gone.get_mut(run_of) {
            let older = |gone: &Gone| gone.pod.owner == pod.owner || gone.pod.created >= pod.created;
            gone.retain(older);
        }
        pods.insert(pod.uid.clone(), pod);
        true
    }

    fn delete(&mut self, run_of: &RunOf, pod: PodFacts, now: Timestamp) {
        if let Some(pods) = self.pods.get_mut(run_of) {
            pods.remove(&pod.uid);
            if pods.is_empty() {
                self.pods.remove(run_of);
            }
        }
        self.gone.retain(|_, gone| {
            gone.retain(|gone| gone.is_recent(now));
            !gone.is_empty()
        });
        let gone = self.gone.entry(run_of.clone()).or_default();
        gone.push(Gone { since: now, pod: PodFacts { gone: true, ..pod } });
        gone.drain(..gone.len().saturating_sub(MOST_GONE));
    }

    /// Takes up a whole list; whether it is the first. What it lacks was deleted unseen.
    fn replace(&mut self, listed: Vec<(RunOf, PodFacts)>, now: Timestamp) -> bool {
        let mut before = std::mem::take(&mut self.pods);
        for (run_of, pod) in listed {
            if let Some(before) = before.get_mut(&run_of) {
                before.remove(&pod.uid);
            }
            self.apply(&run_of, pod);
        }
        for (run_of, pods) in before {
            for pod in pods.into_values() {
                self.delete(&run_of, pod, now);
            }
        }
        !std::mem::replace(&mut self.listed, true)
    }
}

#[cfg(test)]
mod tests;
