//! The watch of locks: a Migrator that waits for one is looked at as soon as it is free.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use migrations_api::names;
use migrations_core::snapshot::LockFacts;

use super::{Guarded, Queue};
use crate::locks::facts;

/// The locks that are held, by the names of their leases. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct LockWatch(Arc<Mutex<HashMap<String, LockFacts>>>);

impl LockWatch {
    /// The lock of that lease, and those that the Migrator with that uid holds.
    pub fn of(&self, lease: Option<&str>, holder: &str) -> Vec<LockFacts> {
        let locks = self.lock();
        let concerns = |lock: &&LockFacts| Some(lock.lease.as_str()) == lease || lock.holder.uid == holder;
        locks.values().filter(concerns).cloned().collect()
    }

    /// Watches for as long as it is polled, and has Migrators that name a lock looked at.
    pub async fn run(self, api: Api<Lease>, migrators: Store<Guarded>, queue: Queue) {
        let config = watcher::Config::default().labels(names::LOCK_LABEL);
        let mut stream = std::pin::pin!(watch(api, config).default_backoff());
        let mut listed = HashMap::new();
        let tell = || {
            let state = migrators.state();
            let named = |it: &&Arc<Guarded>| it.0.as_ref().is_ok_and(|it| it.spec.lock.is_some());
            for migrator in state.iter().filter(named) {
                queue.push(&migrator.namespace().unwrap_or_default(), &migrator.name_any());
            }
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(lease)) => drop(listed.insert(lease.name_any(), facts(&lease))),
                Ok(Event::InitDone) => {
                    *self.lock() = std::mem::take(&mut listed);
                    tell();
                }
                Ok(Event::Apply(lease)) => {
                    self.lock().insert(lease.name_any(), facts(&lease));
                    tell();
                }
                Ok(Event::Delete(lease)) => {
                    self.lock().remove(&lease.name_any());
                    tell();
                }
                Err(error) => {
                    tracing::warn!(%error, "the watch of locks was interrupted; trying again");
                }
            }
        }
    }

    /// A panic while the lock is held loses at most one event, which the next listing brings back.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, LockFacts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
