//! Which Migrator a run label speaks of. A label holds a Migrator's name, or a hash of it where the
//! name is long, so it can't be read back.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Queue, RunOf};

/// The Migrators' names by their run label. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct RunLabels(Arc<RwLock<HashMap<RunOf, String>>>);

impl RunLabels {
    /// A Migrator is there.
    pub fn add(&self, namespace: &str, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.insert(RunOf::migrator(namespace, name), name.to_owned());
    }

    /// A Migrator is gone.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.remove(&RunOf::migrator(namespace, name));
    }

    /// The Migrators that are there, by namespace and name.
    pub fn migrators(&self) -> Vec<(String, String)> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().map(|(run_of, name)| (run_of.namespace.clone(), name.clone())).collect()
    }

    /// Has the Migrator looked at whose runs these are, where it exists.
    pub fn tell(&self, run_of: &RunOf, queue: &Queue) {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(run_of) {
            queue.push(&run_of.namespace, name);
        }
    }

    /// Has all Migrators looked at.
    pub fn tell_all(&self, queue: &Queue) {
        self.migrators().iter().for_each(|(namespace, name)| queue.push(namespace, name));
    }
}
