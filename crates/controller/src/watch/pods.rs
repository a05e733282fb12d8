//! The watches of Pods: one for each selector of a namespace, which the API server applies. Pods
//! that no Migrator selects never arrive here, however many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use migrations_api::Migrator;
use migrations_core::selector::Selector;
use migrations_core::snapshot::PodFacts;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::Queue;
use super::runs::RunWatch;
use super::slim::SlimPod;

/// How many lists are read at once: each is held as text for a moment.
const LISTS_AT_ONCE: usize = 4;

/// All the watches of Pods. Clones are the same watches; they end with the last clone.
#[derive(Clone)]
pub struct PodWatches {
    client: Client,
    queue: Queue,
    runs: RunWatch,
    lists: Arc<Semaphore>,
    changed: Arc<Notify>,
    state: Arc<Mutex<State>>,
}

/// Which Migrator follows what.
#[derive(Default)]
struct State {
    /// What each Migrator selects, by namespace and name.
    followed: HashMap<(String, String), Followed>,
    watched: HashMap<Scope, Watched>,
}

/// A Migrator's selector, parsed and as a watch's scope.
struct Followed {
    selector: Selector,
    scope: Scope,
}

/// What one watch asks the API server for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    namespace: String,
    /// As the API server reads it.
    selector: String,
}

/// One watch, for whom it is, and what it has seen: nothing before its first list.
struct Watched {
    migrators: BTreeSet<String>,
    pods: Option<HashMap<String, PodFacts>>,
    task: Task,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PodWatches {
    /// No watch yet; changes are told to `queue`.
    pub fn new(client: Client, queue: Queue, runs: RunWatch) -> Self {
        let lists = Arc::new(Semaphore::new(LISTS_AT_ONCE));
        Self { client, queue, runs, lists, changed: Arc::default(), state: Arc::default() }
    }

    /// Follows the Pods that a Migrator selects; none, while its selector can't be followed.
    pub fn follow(&self, namespace: &str, name: &str, migrator: Option<&Migrator>) {
        let followed = migrator.and_then(|migrator| Followed::of(namespace, migrator));
        let key = (namespace.to_owned(), name.to_owned());
        let mut state = self.lock();
        let before = state.followed.get(&key).map(|before| &before.scope);
        if before == followed.as_ref().map(|followed| &followed.scope) {
            return;
        }
        state.leave(&key);
        let Some(followed) = followed else { return };
        let start = || Watched {
            migrators: BTreeSet::new(),
            pods: None,
            task: Task(tokio::spawn(self.start(followed.scope.clone()))),
        };
        let watched = state.watched.entry(followed.scope.clone()).or_insert_with(start);
        watched.migrators.insert(name.to_owned());
        state.followed.insert(key, followed);
    }

    /// Forgets a Migrator that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().leave(&(namespace.to_owned(), name.to_owned()));
        self.runs.forget(namespace, name);
    }

    /// The Pods that `selector` matches and those that belong to a run of `migrator`. `None` while
    /// either has not been listed yet; the Migrator is queued once it has.
    pub fn of(&self, namespace: &str, migrator: &str, selector: &Selector) -> Option<Seen> {
        let state = self.lock();
        let followed = state.followed.get(&(namespace.to_owned(), migrator.to_owned()))?;
        // A selector that changed a moment ago is about to be followed.
        let watched = state.watched.get(&followed.scope).filter(|_| followed.selector == *selector)?;
        let matching = watched.pods.as_ref()?.values().cloned().collect();
        Some(Seen { matching, of_runs: self.runs.of(namespace, migrator)? })
    }

    /// Shows each Pod that any Migrator selects, with its namespace; one that several select may be
    /// shown more than once. What `visit` does holds the watches up.
    pub fn visit(&self, mut visit: impl FnMut(&str, &PodFacts)) {
        for (scope, watched) in &self.lock().watched {
            watched.pods.iter().flat_map(HashMap::values).for_each(|pod| visit(&scope.namespace, pod));
        }
    }

    /// Waits until any of these Pods has changed since the last call. For one caller.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn start(&self, scope: Scope) -> impl Future<Output = ()> + use<> {
        let api = Api::<SlimPod>::namespaced(self.client.clone(), &scope.namespace);
        let config = watcher::Config::default().labels(&scope.selector);
        let follower = Follower {
            scope,
            queue: self.queue.clone(),
            changed: Arc::clone(&self.changed),
            state: Arc::downgrade(&self.state),
        };
        let lists = self.lists.clone();
        async move {
            let mut stream = std::pin::pin!(watch(api, config).default_backoff());
            let mut listed = HashMap::new();
            let mut list = None;
            while let Some(event) = stream.next().await {
                match event {
                    Ok(Event::Init) => {
                        listed.clear();
                        list = lists.acquire().await.ok();
                    }
                    Ok(Event::InitApply(SlimPod { facts, .. })) => {
                        listed.insert(facts.name.clone(), facts);
                    }
                    Ok(Event::InitDone) => {
                        follower.replace(std::mem::take(&mut listed));
                        list = None;
                    }
                    Ok(Event::Apply(pod)) => follower.apply(pod),
                    Ok(Event::Delete(pod)) => follower.delete(&pod),
                    Err(error) => {
                        list = None;
                        let Scope { namespace, selector } = &follower.scope;
                        tracing::warn!(namespace, selector, %error, "the watch of Pods was interrupted; trying again");
                    }
                }
            }
            drop(list);
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends a Migrator's watch, where it was the last one that it was for.
    fn leave(&mut self, key: &(String, String)) {
        let Some(before) = self.followed.remove(key) else { return };
        let Some(watched) = self.watched.get_mut(&before.scope) else { return };
        watched.migrators.remove(&key.1);
        if watched.migrators.is_empty() {
            self.watched.remove(&before.scope);
        }
    }
}

impl Followed {
    fn of(namespace: &str, migrator: &Migrator) -> Option<Self> {
        let selector = Selector::parse(&migrator.spec.selector).ok()?;
        let words = kube::core::Selector::try_from(migrator.spec.selector.clone()).ok()?;
        let scope = Scope { namespace: namespace.to_owned(), selector: words.to_string() };
        Some(Self { selector, scope })
    }
}

/// The end of one watch that its events come to.
struct Follower {
    scope: Scope,
    queue: Queue,
    changed: Arc<Notify>,
    /// Not held by the watch, so that it ends with those that it is for.
    state: Weak<Mutex<State>>,
}

impl Follower {
    fn replace(&self, pods: HashMap<String, PodFacts>) {
        self.change(|watched| {
            let changed = watched.pods.as_ref() != Some(&pods);
            watched.pods = Some(pods);
            changed
        });
    }

    fn apply(&self, pod: SlimPod) {
        let SlimPod { facts, .. } = pod;
        self.change(|watched| {
            let pods = watched.pods.get_or_insert_default();
            let changed = pods.get(&facts.name) != Some(&facts);
            pods.insert(facts.name.clone(), facts);
            changed
        });
    }

    fn delete(&self, pod: &SlimPod) {
        self.change(|watched| {
            watched.pods.as_mut().is_some_and(|pods| pods.remove(&pod.facts.name).is_some())
        });
    }

    /// Changes what was seen, and has the Migrators looked at where that makes a difference.
    fn change(&self, change: impl FnOnce(&mut Watched) -> bool) {
        let Some(state) = self.state.upgrade() else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was replaced a moment ago may still be about to tell what it has listed.
        let in_charge = |watched: &&mut Watched| tokio::task::try_id() == Some(watched.task.0.id());
        if let Some(watched) = state.watched.get_mut(&self.scope).filter(in_charge)
            && change(watched)
        {
            watched.migrators.iter().for_each(|name| self.queue.push(&self.scope.namespace, name));
            self.changed.notify_one();
        }
    }
}

/// Pods of one Migrator.
pub struct Seen {
    /// Those that its selector matches.
    pub matching: Vec<PodFacts>,
    /// Those that carry its run label.
    pub of_runs: Vec<PodFacts>,
}

#[cfg(test)]
mod tests {
    use migrations_testkit::builders::migrator;
    use migrations_testkit::recording::RecordingServer;

    use super::*;

    #[tokio::test]
    async fn the_watches_end_with_the_last_clone() {
        let client = RecordingServer::new().client();
        let pods = PodWatches::new(client, Queue::new().0, RunWatch::default());
        for name in ["shop", "blog"] {
            pods.follow("shop", name, Some(&migrator(name).selecting("app", name).build()));
        }
        let tasks: Vec<_> =
            pods.lock().watched.values().map(|watched| watched.task.0.abort_handle()).collect();
        assert_eq!(tasks.len(), 2);
        let other = pods.clone();
        drop(pods);
        tokio::task::yield_now().await;
        assert!(tasks.iter().all(|task| !task.is_finished()));
        drop(other);
        let ended = async {
            while tasks.iter().any(|task| !task.is_finished()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.unwrap();
    }
}
