//! The Migrators as this replica sees them, by namespace: an admission costs only those of its
//! namespace, and a change wakes only the questions about that Migrator. It knows how recent it is, so
//! that a Migrator it doesn't know is told from one that it hasn't heard of yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use std::time::Duration;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use migrations_api::Migrator;
use migrations_core::answer::{self, GONE_FOR_GOOD};
use migrations_core::entries::Named;
use migrations_core::inject::{Gate, Gates};
use tokio::sync::watch;
use tokio::time::Instant;

/// Namespace and name.
pub type Key = (String, String);

/// What is known of a Migrator.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// There is none; questions may wait for it all the same.
    Absent {
        /// Since when, as far as this replica saw. None while it can't see: there may be one again.
        since: Option<Instant>,
    },
    /// There is one that this build can't read.
    Unreadable {
        /// Its uid.
        uid: Option<String>,
        /// Why.
        error: Arc<str>,
        /// A gate that only says so.
        gate: Arc<Gate>,
    },
    /// This one.
    Present {
        /// The object.
        migrator: Arc<Migrator>,
        /// Which Pods it selects.
        gate: Arc<Gate>,
    },
}

impl Entry {
    /// As answers want it.
    pub fn known(&self) -> answer::Known<'_> {
        match self {
            Self::Absent { since } => {
                answer::Known::Absent { since: since.map(|since| since.elapsed()).unwrap_or_default() }
            }
            Self::Unreadable { error, .. } => answer::Known::Unreadable { error },
            Self::Present { migrator, gate: _ } => answer::Known::Migrator(migrator),
        }
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    fn uid(&self) -> Option<&str> {
        match self {
            Self::Absent { .. } => None,
            Self::Unreadable { uid, .. } => uid.as_deref(),
            Self::Present { migrator, .. } => migrator.metadata.uid.as_deref(),
        }
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        match self {
            Self::Absent { .. } => None,
            Self::Unreadable { gate, .. } | Self::Present { gate, .. } => Some(Arc::clone(gate)),
        }
    }
}

type Namespaces = HashMap<String, BTreeMap<String, watch::Sender<Entry>>>;

/// How long it is remembered that a Migrator isn't there: longer than the pause between two questions
/// of a waiter, so that it can be said since when.
const REMEMBERED: Duration = GONE_FOR_GOOD.saturating_mul(2);

/// How many names of Migrators that aren't there questions may bring up in a namespace. They cost
/// memory until they are forgotten, and any Pod may ask about any name.
const MOST_ABSENT: usize = 100;

/// Questions of a namespace are about too many Migrators that aren't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "in this namespace, questions were asked about {MOST_ABSENT} Migrators that don't exist, and no more such names \
     are remembered for now; ask again later, and look for Pods whose waiters name Migrators that never were"
)]
pub struct TooManyAbsent;

/// The Migrators of the cluster. Clones speak of the same ones.
#[derive(Clone, Debug, Default)]
pub struct View {
    known: Arc<RwLock<Known>>,
    /// The newest version that all of it is as recent as; the API server counts them up.
    seen: Arc<watch::Sender<Option<u64>>>,
}

/// Migrators, those that questions were asked about in vain included.
#[derive(Debug)]
struct Known {
    namespaces: Namespaces,
    /// Gates of namespaces that have been asked for since they last changed.
    gates: HashMap<String, Arc<Gates>>,
    /// Uids of those that are there, and whether they can be read.
    uids: HashMap<String, bool>,
    /// Whether changes are heard of.
    in_sight: bool,
    swept: Instant,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::new(),
            gates: HashMap::new(),
            uids: HashMap::new(),
            in_sight: true,
            swept: Instant::now(),
        }
    }
}

impl View {
    /// The gates of a namespace, in the order of the Migrators' names.
    pub fn gates(&self, namespace: &str) -> Arc<Gates> {
        {
            let known = self.read();
            if let Some(gates) = known.gates.get(namespace) {
                return Arc::clone(gates);
            }
            if !known.namespaces.contains_key(namespace) {
                return Arc::default();
            }
        }
        let mut known = self.write();
        let entries = known.namespaces.get(namespace).into_iter().flatten().map(|(_, entry)| entry);
        let gates: Arc<Gates> = Arc::new(entries.filter_map(|entry| entry.borrow().gate()).collect());
        known.gates.insert(namespace.to_owned(), Arc::clone(&gates));
        gates
    }

    /// Waits until this view may answer for the Migrators that an entry names, but no longer than
    /// `patience`; else returns one that it may not answer for. Nor may it for one that can't be read:
    /// nobody knows which Pods that holds, but the entry which it had asks for them.
    pub async fn catch_up(&self, named: &[Named], patience: Duration) -> Result<(), Named> {
        let behind =
            |seen: Option<u64>| named.iter().find(|named| !named.is_seen(|| self.knows(&named.uid), seen));
        let readable = || {
            let known = self.read();
            let unreadable = named.iter().find(|named| known.uids.get(&named.uid) == Some(&false));
            unreadable.map_or(Ok(()), |named| Err(named.clone()))
        };
        let now = *self.seen.borrow();
        if behind(now).is_none() {
            return readable();
        }
        let mut seen = self.seen.subscribe();
        let caught_up = seen.wait_for(|seen| behind(*seen).is_none());
        // The other end is in this view.
        let _ = tokio::time::timeout(patience, caught_up).await;
        let now = *self.seen.borrow();
        behind(now).map_or_else(readable, |named| Err(named.clone()))
    }

    /// Everything up to this version has been applied or removed.
    pub fn advance(&self, version: Option<&str>) {
        self.set_in_sight(true);
        let Some(version) = version.and_then(|version| version.parse().ok()) else { return };
        self.seen.send_if_modified(|seen| {
            let newer = *seen < Some(version);
            if newer {
                *seen = Some(version);
            }
            newer
        });
    }

    /// A new list is complete, which was as recent as this. It may be older than the view was: a
    /// cluster that was restored counts from an earlier version.
    pub fn restart_at(&self, version: Option<u64>) {
        self.set_in_sight(true);
        self.seen.send_replace(version);
    }

    /// Changes aren't heard of any more. What isn't there may have come back: until this is over, and for
    /// a minute after that, nothing is gone for good.
    pub fn lose_sight(&self) {
        self.set_in_sight(false);
    }

    /// Whether changes are heard of, as far as this replica knows.
    pub fn is_in_sight(&self) -> bool {
        self.read().in_sight
    }

    fn set_in_sight(&self, in_sight: bool) {
        if self.is_in_sight() == in_sight {
            return;
        }
        let mut known = self.write();
        known.in_sight = in_sight;
        let absent = known.absent();
        for entry in known.namespaces.values().flat_map(BTreeMap::values) {
            if entry.borrow().is_absent() {
                entry.send_replace(absent.clone());
            }
        }
    }

    fn knows(&self, uid: &str) -> bool {
        self.read().uids.contains_key(uid)
    }

    /// A Migrator came or changed.
    pub fn apply(&self, object: DeserializeGuard<Migrator>) -> Key {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        let uid = object.uid();
        let entry = match object.0 {
            Ok(migrator) => {
                Entry::Present { gate: Arc::new(Gate::of(&migrator)), migrator: Arc::new(migrator) }
            }
            Err(invalid) => {
                tracing::warn!(
                    namespace = key.0,
                    name = key.1,
                    error = invalid.error,
                    "this Migrator can't be read: Pods that its webhook entry asks for are refused, others are not \
                     held; correct it or the CRD"
                );
                let gate = Arc::new(Gate::unreadable(&key.1, &invalid.error));
                Entry::Unreadable { uid, error: invalid.error.into(), gate }
            }
        };
        self.set(&key, entry);
        key
    }

    /// A Migrator is gone.
    pub fn remove(&self, (namespace, name): &Key) {
        let mut known = self.write();
        let absent = known.absent();
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.remove(namespace);
        if let Some(entry) = namespaces.get(namespace).and_then(|entries| entries.get(name)) {
            forget(uids, &entry.send_replace(absent));
        }
    }

    /// All Migrators but these are gone.
    pub fn retain(&self, keys: &HashSet<Key>) {
        let mut known = self.write();
        let absent = known.absent();
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.clear();
        for (namespace, entries) in namespaces {
            for (name, entry) in entries {
                let listed = keys.contains(&(namespace.clone(), name.clone()));
                if !listed && !entry.borrow().is_absent() {
                    forget(uids, &entry.send_replace(absent.clone()));
                }
            }
        }
    }

    /// Watches one Migrator, whether it exists or not.
    pub fn watch(&self, namespace: &str, name: &str) -> Result<Watched, TooManyAbsent> {
        let mut known = self.write();
        if known.swept.elapsed() > REMEMBERED {
            known.sweep();
        }
        if let Some(entry) = known.namespaces.get(namespace).and_then(|entries| entries.get(name)) {
            return Ok(Watched(entry.subscribe()));
        }
        let absent = known.absent();
        let entries = known.namespaces.entry(namespace.to_owned()).or_default();
        if entries.values().filter(|entry| entry.borrow().is_absent()).count() >= MOST_ABSENT {
            return Err(TooManyAbsent);
        }
        let entry = entries.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(absent));
        Ok(Watched(entry.subscribe()))
    }

    fn set(&self, (namespace, name): &Key, entry: Entry) {
        let mut known = self.write();
        let absent = known.absent();
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.remove(namespace);
        let entries = namespaces.entry(namespace.clone()).or_default();
        let sender = entries.entry(name.clone()).or_insert_with(|| watch::Sender::new(absent));
        forget(uids, &sender.borrow());
        let readable = matches!(entry, Entry::Present { .. });
        uids.extend(entry.uid().map(|uid| (uid.to_owned(), readable)));
        sender.send_if_modified(|known| {
            let changed = *known != entry;
            *known = entry;
            changed
        });
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// One that isn't there, or not any more.
    fn absent(&self) -> Entry {
        Entry::Absent { since: self.in_sight.then(Instant::now) }
    }

    /// Forgets what has been absent for a while and nobody asks about.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        self.namespaces.retain(|_, entries| {
            entries.retain(|_, entry| match *entry.borrow() {
                // Where it isn't known since when, nothing is lost.
                Entry::Absent { since } => {
                    entry.receiver_count() > 0 || since.is_some_and(|since| since.elapsed() < REMEMBERED)
                }
                Entry::Unreadable { .. } | Entry::Present { .. } => true,
            });
            !entries.is_empty()
        });
        self.gates.retain(|namespace, _| self.namespaces.contains_key(namespace));
    }
}

/// An entry is gone, or becomes another.
fn forget(uids: &mut HashMap<String, bool>, entry: &Entry) {
    if let Some(uid) = entry.uid() {
        uids.remove(uid);
    }
}

/// One Migrator, watched by a question.
#[derive(Debug)]
pub struct Watched(watch::Receiver<Entry>);

impl Watched {
    /// What is known of it now.
    pub fn current(&mut self) -> Entry {
        self.0.borrow_and_update().clone()
    }

    /// Returns once that has changed, or once a Migrator that is absent is so for good: that changes
    /// the answer too.
    pub async fn changed(&mut self) {
        let left = match &*self.0.borrow() {
            Entry::Absent { since } => since.and_then(|since| GONE_FOR_GOOD.checked_sub(since.elapsed())),
            Entry::Unreadable { .. } | Entry::Present { .. } => None,
        };
        let gone = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The view outlives whoever watches it.
            _ = self.0.changed() => {}
            () = gone => {}
        }
    }
}

#[cfg(test)]
#[path = "view/tests.rs"]
mod tests;
