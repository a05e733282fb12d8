//! The watch of locks: a Migrator that waits for one is looked at as soon as it is free.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, ResourceExt};
use migrations_api::names;
use migrations_core::snapshot::{LockFacts, Policy};

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

    /// Watches for as long as it is polled, and has the Migrators looked at that a changed lock concerns.
    pub async fn run(self, api: Api<Lease>, migrators: Store<Guarded>, policy: Policy, queue: Queue) {
        let config = watcher::Config::default().labels(names::LOCK_LABEL);
        let mut stream = std::pin::pin!(watch(api, config).default_backoff());
        let mut listed = HashMap::new();
        let tell = |changed: Changed| {
            for migrator in migrators.state() {
                if changed.concerns(&migrator, &policy) {
                    queue.push(&migrator.namespace().unwrap_or_default(), &migrator.name_any());
                }
            }
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(lease)) => drop(listed.insert(lease.name_any(), facts(&lease))),
                Ok(Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    let before = std::mem::replace(&mut *self.lock(), listed.clone());
                    tell(before.into_values().chain(listed.into_values()).collect());
                }
                Ok(Event::Apply(lease)) => {
                    let now = facts(&lease);
                    let before = self.lock().insert(now.lease.clone(), now.clone());
                    tell(before.into_iter().chain([now]).collect());
                }
                Ok(Event::Delete(lease)) => {
                    let before = self.lock().remove(&lease.name_any());
                    tell(before.into_iter().chain([facts(&lease)]).collect());
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

/// Locks that changed. A list has all of them, so each Migrator is looked up once.
struct Changed {
    leases: HashSet<String>,
    /// Uids of the Migrators that hold one.
    holders: HashSet<String>,
}

impl FromIterator<LockFacts> for Changed {
    fn from_iter<L: IntoIterator<Item = LockFacts>>(locks: L) -> Self {
        let (leases, holders) = locks.into_iter().map(|lock| (lock.lease, lock.holder.uid)).unzip();
        Self { leases, holders }
    }
}

impl Changed {
    /// Whether a Migrator holds one of them, or names it and may wait for it.
    fn concerns(&self, migrator: &Guarded, policy: &Policy) -> bool {
        let named = migrator.0.as_ref().ok().and_then(|it| it.spec.lock.as_deref());
        let lease = named.map(|lock| policy.lease(&migrator.namespace().unwrap_or_default(), lock));
        lease.is_some_and(|lease| self.leases.contains(&lease))
            || migrator.uid().is_some_and(|uid| self.holders.contains(&uid))
    }
}

#[cfg(test)]
mod tests {
    use migrations_core::snapshot::LockHolder;
    use migrations_testkit::builders::migrator;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::names_it("shop", "a", json!({ "lock": "db" }), true)]
    #[case::holds_it("shop", "holder", json!({}), true)]
    #[case::holds_it_and_cannot_be_read("shop", "holder", json!({ "selector": 1 }), true)]
    #[case::names_another("shop", "a", json!({ "lock": "other" }), false)]
    #[case::names_one_of_another_namespace("elsewhere", "a", json!({ "lock": "db" }), false)]
    #[case::names_none("shop", "a", json!({}), false)]
    #[case::names_a_shared_one("elsewhere", "a", json!({ "lock": "shared" }), true)]
    fn a_changed_lock_is_told_to_whom_it_concerns(
        #[case] namespace: &str,
        #[case] uid: &str,
        #[case] spec: serde_json::Value,
        #[case] concerned: bool,
    ) {
        let policy = Policy { shared_locks: ["shared".to_owned()].into(), ..Policy::default() };
        let name = if spec["lock"] == "shared" { "shared" } else { "db" };
        let holder =
            LockHolder { namespace: "shop".to_owned(), name: "holder".to_owned(), uid: "holder".to_owned() };
        let lock = LockFacts {
            lease: policy.lease("shop", name),
            uid: String::new(),
            resource_version: String::new(),
            holder,
            abandoned: false,
        };
        let migrator = migrator("some").namespace(namespace).uid(uid).with(json!({ "spec": spec }));
        let migrator: Guarded = serde_json::from_value(migrator.json()).unwrap();
        let changed: Changed = [lock].into_iter().collect();
        assert_eq!(changed.concerns(&migrator, &policy), concerned);
    }
}
