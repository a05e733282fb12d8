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
        /// Since when, as far as this replica saw.
        since: Instant,
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
            Self::Absent { since } => answer::Known::Absent { since: since.elapsed() },
            Self::Unreadable { error, .. } => answer::Known::Unreadable { error },
            Self::Present { migrator, gate: _ } => answer::Known::Migrator(migrator),
        }
    }

    /// One that isn't there, or not any more.
    fn absent() -> Self {
        Self::Absent { since: Instant::now() }
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
    /// Uids of those that are there.
    uids: HashSet<String>,
    swept: Instant,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            namespaces: Namespaces::new(),
            gates: HashMap::new(),
            uids: HashSet::new(),
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
    /// `patience`; else returns one that it may not answer for.
    pub async fn catch_up(&self, named: &[Named], patience: Duration) -> Result<(), Named> {
        let behind =
            |seen: Option<u64>| named.iter().find(|named| !named.is_seen(|| self.knows(&named.uid), seen));
        let now = *self.seen.borrow();
        if behind(now).is_none() {
            return Ok(());
        }
        let mut seen = self.seen.subscribe();
        let caught_up = seen.wait_for(|seen| behind(*seen).is_none());
        // The other end is in this view.
        let _ = tokio::time::timeout(patience, caught_up).await;
        let now = *self.seen.borrow();
        behind(now).map_or(Ok(()), |named| Err(named.clone()))
    }

    /// Everything up to this version has been applied or removed.
    pub fn advance(&self, version: Option<&str>) {
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
        self.seen.send_replace(version);
    }

    fn knows(&self, uid: &str) -> bool {
        self.read().uids.contains(uid)
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
                    "this Migrator can't be read, its Pods are not held; correct it or the CRD"
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
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.remove(namespace);
        if let Some(entry) = namespaces.get(namespace).and_then(|entries| entries.get(name)) {
            forget(uids, &entry.send_replace(Entry::absent()));
        }
    }

    /// All Migrators but these are gone.
    pub fn retain(&self, keys: &HashSet<Key>) {
        let mut known = self.write();
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.clear();
        for (namespace, entries) in namespaces {
            for (name, entry) in entries {
                let listed = keys.contains(&(namespace.clone(), name.clone()));
                if !listed && !entry.borrow().is_absent() {
                    forget(uids, &entry.send_replace(Entry::absent()));
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
        let entries = known.namespaces.entry(namespace.to_owned()).or_default();
        if entries.values().filter(|entry| entry.borrow().is_absent()).count() >= MOST_ABSENT {
            return Err(TooManyAbsent);
        }
        let entry = entries.entry(name.to_owned()).or_insert_with(|| watch::Sender::new(Entry::absent()));
        Ok(Watched(entry.subscribe()))
    }

    fn set(&self, (namespace, name): &Key, entry: Entry) {
        let mut known = self.write();
        let Known { namespaces, gates, uids, .. } = &mut *known;
        gates.remove(namespace);
        let entries = namespaces.entry(namespace.clone()).or_default();
        let sender = entries.entry(name.clone()).or_insert_with(|| watch::Sender::new(Entry::absent()));
        forget(uids, &sender.borrow());
        uids.extend(entry.uid().map(str::to_owned));
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
    /// Forgets what has been absent for a while and nobody asks about.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        self.namespaces.retain(|_, entries| {
            entries.retain(|_, entry| match *entry.borrow() {
                Entry::Absent { since } => entry.receiver_count() > 0 || since.elapsed() < REMEMBERED,
                Entry::Unreadable { .. } | Entry::Present { .. } => true,
            });
            !entries.is_empty()
        });
        self.gates.retain(|namespace, _| self.namespaces.contains_key(namespace));
    }
}

/// An entry is gone, or becomes another.
fn forget(uids: &mut HashSet<String>, entry: &Entry) {
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
            Entry::Absent { since } => GONE_FOR_GOOD.checked_sub(since.elapsed()),
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
mod tests {
    use super::*;
    use futures::FutureExt;
    use serde_json::{Value, json};

    fn object(namespace: &str, name: &str, spec: &Value) -> DeserializeGuard<Migrator> {
        serde_json::from_value(json!({
            "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        }))
        .unwrap()
    }

    fn selecting(app: &str) -> Value {
        json!({"selector": {"matchLabels": {"app": app}}})
    }

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn a_namespace_has_its_own_gates_in_order() {
        let view = View::default();
        view.apply(object("a", "two", &selecting("x")));
        view.apply(object("a", "one", &selecting("x")));
        view.apply(object("b", "other", &selecting("x")));
        let gates: Vec<_> = view.gates("a").iter().map(|gate| gate.migrator.clone()).collect();
        assert_eq!(gates, ["one", "two"]);
        assert_eq!(view.gates("c").iter().count(), 0);
    }

    #[test]
    fn one_that_cannot_be_read_is_known_and_leaves_the_others_alone() {
        let view = View::default();
        view.apply(object("a", "good", &selecting("x")));
        view.apply(object("a", "bad", &json!({"selector": "x"})));
        let readable: Vec<_> = view.gates("a").iter().map(|gate| gate.selector.is_ok()).collect();
        assert_eq!(readable, [false, true]);
        assert!(matches!(view.watch("a", "bad").unwrap().current(), Entry::Unreadable { .. }));
    }

    #[test]
    fn gates_are_as_the_last_change_left_them() {
        let view = View::default();
        view.apply(object("a", "one", &selecting("x")));
        let open = || view.gates("a").iter().filter(|gate| gate.container.is_some()).count();
        assert_eq!(open(), 0);
        let named = json!({"selector": {"matchLabels": {"app": "x"}}, "container": "web"});
        view.apply(object("a", "one", &named));
        assert_eq!(open(), 1);
        view.apply(object("a", "two", &named));
        assert_eq!(open(), 2);
        view.remove(&key("a", "one"));
        assert_eq!(open(), 1);
        view.retain(&HashSet::new());
        assert_eq!(open(), 0);
    }

    #[tokio::test]
    async fn a_change_wakes_only_who_watches_that_migrator() {
        let view = View::default();
        view.apply(object("a", "one", &selecting("x")));
        let (mut one, mut two) = (view.watch("a", "one").unwrap(), view.watch("a", "two").unwrap());
        one.current();
        view.apply(object("a", "one", &selecting("x")));
        assert!(one.changed().now_or_never().is_none(), "nothing has changed");
        view.apply(object("a", "one", &selecting("y")));
        assert!(one.changed().now_or_never().is_some());
        assert!(two.changed().now_or_never().is_none());
        view.apply(object("a", "two", &selecting("y")));
        assert!(two.changed().now_or_never().is_some(), "one that was awaited came");
    }

    fn named(uid: &str, version: u64) -> [Named; 1] {
        [Named { uid: uid.to_owned(), version: Some(version) }]
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_what_its_entry_was_written_for() {
        let view = View::default();
        view.restart_at(Some(40));
        let patience = Duration::from_secs(3);
        let (start, ours) = (Instant::now(), named("7d1f", 41));
        assert_eq!(view.catch_up(&ours, patience).await, Err(ours[0].clone()));
        assert_eq!(start.elapsed(), patience);

        let waits = view.catch_up(&ours, patience);
        let comes = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            view.advance(Some("41"));
        };
        let (caught_up, ()) = tokio::join!(waits, comes);
        assert_eq!(caught_up, Ok(()));
        assert_eq!(start.elapsed(), patience + Duration::from_secs(1), "at once when it comes");
        assert_eq!(view.catch_up(&named("gone", 30), patience).await, Ok(()));
        assert_eq!(start.elapsed(), patience + Duration::from_secs(1), "nothing to wait for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_counts_up_until_the_cluster_starts_again() {
        let view = View::default();
        let is_at = async |version| {
            let now = Duration::ZERO;
            view.catch_up(&named("x", version), now).await.is_ok()
                && view.catch_up(&named("x", version + 1), now).await.is_err()
        };
        view.restart_at(Some(7));
        view.advance(Some("9"));
        view.advance(Some("8"));
        view.advance(Some("no number"));
        view.advance(None);
        assert!(is_at(9).await);
        view.restart_at(Some(5));
        assert!(is_at(5).await);
    }

    #[tokio::test]
    async fn without_numbers_those_that_are_known_are_answered_for() {
        let view = View::default();
        let mut known = serde_json::to_value(json!({
            "apiVersion": "migrations.coderanger.net/v1beta1", "kind": "Migrator", "spec": selecting("x"),
        }))
        .unwrap();
        for (name, spec) in [("good", selecting("x")), ("bad", json!({"selector": "x"}))] {
            known["metadata"] = json!({"name": name, "namespace": "a", "uid": name});
            known["spec"] = spec;
            view.apply(serde_json::from_value(known.clone()).unwrap());
            assert_eq!(view.catch_up(&named(name, 41), Duration::ZERO).await, Ok(()));
        }
        assert!(view.catch_up(&named("other", 41), Duration::ZERO).await.is_err());
    }

    #[tokio::test]
    async fn a_new_list_replaces_the_old_one() {
        let view = View::default();
        view.apply(object("a", "stays", &selecting("x")));
        view.apply(object("b", "goes", &selecting("x")));
        let mut watched = view.watch("b", "goes").unwrap();
        watched.current();
        view.retain(&HashSet::from([key("a", "stays")]));
        assert_eq!(view.gates("a").iter().count(), 1);
        assert_eq!(view.gates("b").iter().count(), 0);
        assert!(watched.changed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn questions_about_what_does_not_exist_are_forgotten_after_a_while() {
        let view = View::default();
        drop(view.watch("a", "x").unwrap());
        let watched = view.watch("a", "y").unwrap();
        view.apply(object("a", "z", &selecting("x")));
        tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
        drop(view.watch("b", "now").unwrap());
        let known = view.read();
        let names: Vec<_> = known.namespaces.values().flat_map(|entries| entries.keys().cloned()).collect();
        assert!(!names.contains(&"x".to_owned()) && names.len() == 3, "{names:?}");
        drop(watched);
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_of_made_up_names_takes_memory_or_keeps_others_out_for_long() {
        let view = View::default();
        view.apply(object("a", "there", &selecting("x")));
        for name in 0..10_000 {
            drop(view.watch("a", &format!("made-up-{name}")));
        }
        assert_eq!(view.read().namespaces["a"].len(), 1 + MOST_ABSENT);
        assert_eq!(view.watch("a", "another").unwrap_err(), TooManyAbsent);
        assert!(view.watch("a", "there").is_ok(), "one that is there");
        assert!(view.watch("a", "made-up-7").is_ok(), "one that is remembered");
        assert!(view.watch("b", "another").is_ok(), "in another namespace");
        view.apply(object("a", "another", &selecting("x")));
        assert!(view.watch("a", "another").is_ok(), "one that came");
        tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
        assert!(view.watch("a", "yet-another").is_ok(), "after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_woken_when_its_migrator_is_gone_for_good() {
        let view = View::default();
        view.apply(object("a", "one", &selecting("x")));
        view.remove(&key("a", "one"));
        let start = Instant::now();
        // As a waiter does: it asks again and again.
        for _ in 0..3 {
            let mut watched = view.watch("a", "one").unwrap();
            watched.current();
            tokio::select! {
                () = watched.changed() => assert!(start.elapsed() >= GONE_FOR_GOOD),
                () = tokio::time::sleep(Duration::from_secs(25)) => {}
            }
        }
        let answer::Known::Absent { since } = view.watch("a", "one").unwrap().current().known() else {
            panic!()
        };
        assert!(since >= GONE_FOR_GOOD, "{since:?}");
    }
}
