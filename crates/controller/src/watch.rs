//! What the controller keeps in memory of the cluster, and who is told when it changes.
//!
//! Memory grows with Pods that a Migrator selects, not with all Pods: only namespaces that hold a
//! Migrator are watched, and of a Pod only what decisions read is kept.

pub mod jobs;
pub mod locks;
pub mod migrators;
pub mod pods;

use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use migrations_api::Migrator;
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
