//! What the controller keeps in memory of the cluster, and who is told when it changes.
//!
//! Memory grows with Pods that a Migrator selects, not with all Pods: the API server is asked for
//! those alone, and of a Pod only what decisions read is decoded.

pub mod jobs;
pub mod labels;
pub mod locks;
pub mod migrators;
pub mod pods;
pub mod runs;
pub mod slim;

use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use migrations_api::{Migrator, names};
use tokio::sync::mpsc;

/// A Migrator that may not decode: one that doesn't must not stop the watch of the others.
pub type Guarded = DeserializeGuard<Migrator>;

/// Names Migrators that have to be looked at.
#[derive(Clone, Debug)]
pub struct Queue(mpsc::UnboundedSender<ObjectRef<Guarded>>);

impl Queue {
    /// A queue and the end that is worked off. It can't grow beyond what is watched: the scheduler
    /// behind it takes everything at once and keeps one entry a Migrator.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<ObjectRef<Guarded>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Has a Migrator looked at.
    pub fn push(&self, namespace: &str, name: &str) {
        // The other end is gone only when the program ends.
        let _ = self.0.send(ObjectRef::new(name).within(namespace));
    }
}

/// The namespace and run label by which the Jobs and Pods of one Migrator's runs are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunOf {
    /// Where they are.
    pub namespace: String,
    /// The value of their run label.
    pub label: String,
}

impl RunOf {
    /// Of the Migrator of that name.
    pub fn migrator(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), label: names::label_value(name) }
    }
}
