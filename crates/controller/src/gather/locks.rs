//! Reads the locks that concern a Migrator: the one that its spec names, and those that it holds.

use kube::api::ListParams;
use kube::{Api, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::snapshot::{LockFacts, LockHolder, Snapshot};
use migrations_core::validate::Valid;

use super::{Error, Gatherer};
use crate::watch::slim::{SlimJob, SlimPod};

impl Gatherer {
    /// As watched.
    pub(super) fn watched_locks(&self, snapshot: &Snapshot, valid: Option<&Valid>) -> Vec<LockFacts> {
        let lease = wanted(snapshot, valid);
        let mut all = self.lock_watch.of(lease.as_deref(), &snapshot.uid);
        for lock in all.iter_mut().filter(|lock| lock.holder.uid != snapshot.uid) {
            let LockHolder { namespace, name, uid } = &lock.holder;
            let lives = |it: &crate::watch::Guarded| it.uid().as_ref() == Some(uid);
            let lives = self.migrators.state().iter().any(|migrator| lives(migrator));
            let runs = self.jobs.of(namespace, name).iter().any(|job| job.owner_uid.as_ref() == Some(uid));
            lock.abandoned = !lives && !runs;
        }
        all
    }

    /// Read again from the API server, with all that a holder might still be at.
    pub(super) async fn read_locks(
        &self,
        snapshot: &Snapshot,
        valid: Option<&Valid>,
    ) -> Result<Vec<LockFacts>, Error> {
        let lease = wanted(snapshot, valid);
        let mut all = self.lock_watch.of(lease.as_deref(), &snapshot.uid);
        if let Some(lease) = lease {
            all.retain(|lock| lock.lease != lease);
            if let Some(mut lock) = self.locks.read(&lease).await.map_err(Error::Lock)? {
                lock.abandoned = lock.holder.uid != snapshot.uid && self.is_gone(&lock.holder).await?;
                all.push(lock);
            }
        }
        Ok(all)
    }

    /// Whether a holder is gone with all of its runs.
    async fn is_gone(&self, holder: &LockHolder) -> Result<bool, Error> {
        let LockHolder { namespace, name, uid } = holder;
        let migrators = Api::<Migrator>::namespaced(self.client.clone(), namespace);
        let migrator = migrators.get_opt(name).await.map_err(Error::Lock)?;
        if migrator.and_then(|it| it.uid()).as_ref() == Some(uid) {
            return Ok(false);
        }
        let label = format!("{}={}", names::RUN_LABEL, names::label_value(name));
        let of_runs = ListParams::default().labels(&label);
        let jobs = Api::<SlimJob>::namespaced(self.client.clone(), namespace);
        let jobs = jobs.list(&of_runs).await.map_err(Error::Lock)?;
        if jobs.iter().any(|job| job.facts.owner_uid.as_ref() == Some(uid)) {
            return Ok(false);
        }
        // Its Pods can't be told from those of another Migrator of the name any more.
        let pods = Api::<SlimPod>::namespaced(self.client.clone(), namespace);
        let pods = pods.list(&of_runs).await.map_err(Error::Lock)?;
        Ok(!pods.iter().any(|pod| pod.facts.unfinished()))
    }
}

/// The lease of the lock that the spec names.
fn wanted(snapshot: &Snapshot, valid: Option<&Valid>) -> Option<String> {
    let lock = valid?.lock.as_deref()?;
    Some(snapshot.policy.lease(&snapshot.namespace, lock))
}
