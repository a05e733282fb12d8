//! The Migrators as this replica sees them, by namespace: an admission costs only those of its
//! namespace, and a change wakes only the questions about that Migrator.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use migrations_api::Migrator;
use migrations_core::answer::Known;
use migrations_core::inject::Gate;
use tokio::sync::watch;

/// Namespace and name.
pub type Key = (String, String);

/// What is known of a Migrator.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Entry {
    /// There is none; questions may wait for it all the same.
    #[default]
    Absent,
    /// There is one that this build can't read.
    Unreadable {
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
    pub fn known(&self) -> Known<'_> {
        match self {
            Self::Absent => Known::Absent,
            Self::Unreadable { error, gate: _ } => Known::Unreadable { error },
            Self::Present { migrator, gate: _ } => Known::Migrator(migrator),
        }
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        match self {
            Self::Absent => None,
            Self::Unreadable { gate, .. } | Self::Present { gate, .. } => Some(Arc::clone(gate)),
        }
    }
}

type Namespaces = HashMap<String, BTreeMap<String, watch::Sender<Entry>>>;

/// The Migrators of the cluster. Clones speak of the same ones.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<RwLock<Namespaces>>);

impl View {
    /// The gates of a namespace, in the order of the Migrators' names.
    pub fn gates(&self, namespace: &str) -> Vec<Arc<Gate>> {
        let namespaces = self.read();
        let entries = namespaces.get(namespace).into_iter().flatten();
        entries.filter_map(|(_, entry)| entry.borrow().gate()).collect()
    }

    /// A Migrator came or changed.
    pub fn apply(&self, object: DeserializeGuard<Migrator>) -> Key {
        let key = (object.namespace().unwrap_or_default(), object.name_any());
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
                Entry::Unreadable { error: invalid.error.into(), gate }
            }
        };
        self.set(&key, entry);
        key
    }

    /// A Migrator is gone.
    pub fn remove(&self, (namespace, name): &Key) {
        let mut namespaces = self.write();
        let Some(entries) = namespaces.get_mut(namespace) else { return };
        let Some(entry) = entries.get(name) else { return };
        entry.send_replace(Entry::Absent);
        tidy(&mut namespaces, namespace, name);
    }

    /// All Migrators but these are gone.
    pub fn retain(&self, keys: &HashSet<Key>) {
        let all = self.read();
        let known =
            all.iter().flat_map(|(ns, entries)| entries.keys().map(|name| (ns.clone(), name.clone())));
        let gone: Vec<_> = known.filter(|key| !keys.contains(key)).collect();
        drop(all);
        for key in &gone {
            self.remove(key);
        }
    }

    /// Watches one Migrator, whether it exists or not.
    pub fn watch(&self, namespace: &str, name: &str) -> Watched {
        let mut namespaces = self.write();
        let entry = namespaces.entry(namespace.to_owned()).or_default().entry(name.to_owned()).or_default();
        let receiver = entry.subscribe();
        Watched { view: self.clone(), key: (namespace.to_owned(), name.to_owned()), receiver: Some(receiver) }
    }

    fn set(&self, (namespace, name): &Key, entry: Entry) {
        let mut namespaces = self.write();
        let sender = namespaces.entry(namespace.clone()).or_default().entry(name.clone()).or_default();
        sender.send_if_modified(|known| {
            let changed = *known != entry;
            *known = entry;
            changed
        });
    }

    fn read(&self) -> RwLockReadGuard<'_, Namespaces> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Namespaces> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets an absent Migrator that nobody asks about.
fn tidy(namespaces: &mut Namespaces, namespace: &str, name: &str) {
    let Some(entries) = namespaces.get_mut(namespace) else { return };
    let unused = |entry: &watch::Sender<Entry>| {
        entry.receiver_count() == 0 && matches!(*entry.borrow(), Entry::Absent)
    };
    if entries.get(name).is_some_and(unused) {
        entries.remove(name);
    }
    if entries.is_empty() {
        namespaces.remove(namespace);
    }
}

/// One Migrator, watched by a question.
#[derive(Debug)]
pub struct Watched {
    view: View,
    key: Key,
    /// Taken when this is dropped.
    receiver: Option<watch::Receiver<Entry>>,
}

impl Watched {
    /// What is known of it now.
    pub fn current(&mut self) -> Entry {
        self.receiver.as_mut().map(|receiver| receiver.borrow_and_update().clone()).unwrap_or_default()
    }

    /// Returns once that has changed.
    pub async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Under the lock, so that the last one to leave sees that it is the last.
        let mut namespaces = self.view.write();
        drop(self.receiver.take());
        tidy(&mut namespaces, &self.key.0, &self.key.1);
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
        assert!(view.gates("c").is_empty());
    }

    #[test]
    fn one_that_cannot_be_read_is_known_and_leaves_the_others_alone() {
        let view = View::default();
        view.apply(object("a", "good", &selecting("x")));
        view.apply(object("a", "bad", &json!({"selector": "x"})));
        let gates = view.gates("a");
        assert_eq!(gates.len(), 2);
        assert!(gates[0].selector.is_err() && gates[1].selector.is_ok());
        assert!(matches!(view.watch("a", "bad").current(), Entry::Unreadable { .. }));
    }

    #[test]
    fn a_change_wakes_only_who_watches_that_migrator() {
        let view = View::default();
        view.apply(object("a", "one", &selecting("x")));
        let (mut one, mut two) = (view.watch("a", "one"), view.watch("a", "two"));
        one.current();
        view.apply(object("a", "one", &selecting("x")));
        assert!(one.changed().now_or_never().is_none(), "nothing has changed");
        view.apply(object("a", "one", &selecting("y")));
        assert!(one.changed().now_or_never().is_some());
        assert!(two.changed().now_or_never().is_none());
        view.apply(object("a", "two", &selecting("y")));
        assert!(two.changed().now_or_never().is_some(), "one that was awaited came");
    }

    #[test]
    fn a_new_list_replaces_the_old_one() {
        let view = View::default();
        view.apply(object("a", "stays", &selecting("x")));
        view.apply(object("b", "goes", &selecting("x")));
        let mut watched = view.watch("b", "goes");
        watched.current();
        view.retain(&HashSet::from([key("a", "stays")]));
        assert_eq!(view.gates("a").len(), 1);
        assert!(view.gates("b").is_empty());
        assert!(watched.changed().now_or_never().is_some());
    }

    #[test]
    fn questions_about_what_does_not_exist_leave_nothing_behind() {
        let view = View::default();
        let (one, two) = (view.watch("a", "x"), view.watch("a", "x"));
        drop((one, two));
        assert!(view.read().is_empty());

        let watched = view.watch("a", "y");
        view.apply(object("a", "y", &selecting("x")));
        view.remove(&key("a", "y"));
        assert_eq!(view.read().len(), 1, "still watched");
        drop(watched);
        assert!(view.read().is_empty());
    }
}
