//! The watches of Pods: one for each namespace that holds a Migrator. Every Pod is pruned on
//! arrival, and kept only where a Migrator selects it or it belongs to a run.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use migrations_api::names;
use migrations_core::selector::Selector;
use migrations_core::snapshot::PodFacts;
use tokio::task::JoinHandle;

use super::Queue;

/// What a Migrator wants to know of its namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// Its name.
    pub migrator: String,
    /// Which Pods it selects; none while its selector can't be followed.
    pub selector: Option<Selector>,
}

/// All the watches of Pods. Clones are the same watches.
#[derive(Clone)]
pub struct PodWatches {
    client: Client,
    queue: Queue,
    namespaces: Arc<Mutex<HashMap<String, Namespace>>>,
}

/// One namespace's watch and what it has seen.
struct Namespace {
    selected: Vec<Selected>,
    pods: HashMap<String, PodFacts>,
    synced: bool,
    task: JoinHandle<()>,
}

impl PodWatches {
    /// No watch yet; changes are told to `queue`.
    pub fn new(client: Client, queue: Queue) -> Self {
        Self { client, queue, namespaces: Arc::default() }
    }

    /// The namespaces that are watched.
    pub fn namespaces(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    /// Says which Migrators a namespace has. A change of selectors starts its watch anew, since Pods
    /// that nobody selected were not kept.
    pub fn select(&self, namespace: &str, selected: Vec<Selected>) {
        let mut namespaces = self.lock();
        if namespaces.get(namespace).is_some_and(|watched| watched.selected == selected) {
            return;
        }
        if let Some(before) = namespaces.remove(namespace) {
            before.task.abort();
        }
        if !selected.is_empty() {
            let task = tokio::spawn(self.clone().run(namespace.to_owned()));
            let watched = Namespace { selected, pods: HashMap::new(), synced: false, task };
            namespaces.insert(namespace.to_owned(), watched);
        }
    }

    /// The Pods that `selector` matches and those that belong to a run of `migrator`. `None` while
    /// the namespace's watch has not listed them yet; the Migrator is queued once it has.
    pub fn of(&self, namespace: &str, migrator: &str, selector: &Selector) -> Option<Seen> {
        let namespaces = self.lock();
        let watched = namespaces.get(namespace).filter(|watched| watched.synced)?;
        let label = names::label_value(migrator);
        let of_run = |pod: &&PodFacts| pod.labels.get(names::RUN_LABEL) == Some(&label);
        Some(Seen {
            matching: watched.pods.values().filter(|pod| selector.matches(&pod.labels)).cloned().collect(),
            of_runs: watched.pods.values().filter(of_run).cloned().collect(),
        })
    }

    async fn run(self, namespace: String) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let mut stream = std::pin::pin!(watch(api, watcher::Config::default()).default_backoff());
        let mut listed = HashMap::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => {
                    let facts = PodFacts::from(&pod);
                    if self.lock().get(&namespace).is_some_and(|it| it.concerns(&facts).next().is_some()) {
                        listed.insert(facts.name.clone(), facts);
                    }
                }
                Ok(Event::InitDone) => self.replace(&namespace, std::mem::take(&mut listed)),
                Ok(Event::Apply(pod)) => self.change(&namespace, &PodFacts::from(&pod), false),
                Ok(Event::Delete(pod)) => self.change(&namespace, &PodFacts::from(&pod), true),
                Err(error) => {
                    tracing::warn!(namespace, %error, "the watch of Pods was interrupted; trying again");
                }
            }
        }
    }

    fn replace(&self, namespace: &str, pods: HashMap<String, PodFacts>) {
        let mut namespaces = self.lock();
        if let Some(watched) = in_charge(&mut namespaces, namespace) {
            watched.pods = pods;
            watched.synced = true;
            for selected in &watched.selected {
                self.queue.push(namespace, &selected.migrator);
            }
        }
    }

    /// Takes up a change of one Pod, and has those Migrators looked at that it concerns or did.
    fn change(&self, namespace: &str, pod: &PodFacts, deleted: bool) {
        let mut namespaces = self.lock();
        let Some(watched) = in_charge(&mut namespaces, namespace) else { return };
        let before = watched.pods.remove(&pod.name);
        if !deleted && before.as_ref() == Some(pod) {
            watched.pods.extend(before.map(|before| (before.name.clone(), before)));
            return;
        }
        let concerned: BTreeSet<_> =
            watched.concerns(pod).chain(before.iter().flat_map(|before| watched.concerns(before))).collect();
        for migrator in &concerned {
            self.queue.push(namespace, migrator);
        }
        let keep = !deleted && watched.concerns(pod).next().is_some();
        if keep {
            watched.pods.insert(pod.name.clone(), pod.clone());
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Namespace>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the calling watch may write to. One that was replaced a moment ago may still be about to
/// write what it listed for other selectors.
fn in_charge<'a>(
    namespaces: &'a mut HashMap<String, Namespace>,
    namespace: &str,
) -> Option<&'a mut Namespace> {
    namespaces.get_mut(namespace).filter(|watched| watched.task.id() == tokio::task::id())
}

impl Namespace {
    /// Names of the Migrators that a Pod concerns.
    fn concerns<'a>(&'a self, pod: &'a PodFacts) -> impl Iterator<Item = &'a str> + use<'a> {
        let run_of = pod.labels.get(names::RUN_LABEL);
        self.selected
            .iter()
            .filter(move |selected| {
                selected.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
                    || run_of.is_some_and(|label| *label == names::label_value(&selected.migrator))
            })
            .map(|selected| selected.migrator.as_str())
    }
}

/// Pods of one Migrator.
pub struct Seen {
    /// Those that its selector matches.
    pub matching: Vec<PodFacts>,
    /// Those that carry its run label.
    pub of_runs: Vec<PodFacts>,
}
