//! Locks between Migrators (contract §5). A lock is a lease: taken before the claim, held while any
//! Pod of the run is unfinished, and looked for once more before the Job is started.

use std::time::Duration;

use migrations_api::Reason;

use super::{Draft, LOOK_AGAIN};
use crate::plan::{Effect, LeaseVersion};
use crate::snapshot::LockFacts;
use crate::status::Standing;
use crate::validate::Valid;

impl Draft<'_> {
    /// Why no run may start for want of the lock. One without a living holder is taken; the next look
    /// finds it held.
    pub(super) fn without_lock(&mut self, valid: &Valid) -> Option<Standing> {
        let lock = valid.lock.as_deref()?;
        let lease = self.snapshot.policy.lease(&self.snapshot.namespace, lock);
        let found = self.snapshot.locks.iter().find(|found| found.lease == lease);
        match found {
            Some(found) if found.holder.uid == self.snapshot.uid => return None,
            Some(LockFacts { holder, abandoned: false, .. }) => {
                // The lease of a holder that is gone changes no more: when its last Job goes is told to
                // nobody.
                self.look_again_in(LOOK_AGAIN);
                return Some(Standing::reconciling(
                    Reason::Locked,
                    format!(
                        "waits for the lock {lock}, held by Migrator {} in namespace {}",
                        holder.name, holder.namespace
                    ),
                ));
            }
            _ => {}
        }
        self.effects.push(Effect::TakeLock { lease, found: found.map(version) });
        self.look_again_in(Duration::ZERO);
        Some(Standing::reconciling(Reason::Pending, format!("takes the lock {lock}")))
    }

    /// Gives back whatever lock is held while there is no run: also one that the spec doesn't name any
    /// more.
    pub(super) fn release_locks(&mut self) {
        if self.status.current.is_some() || self.earlier_run(None).is_some() {
            return;
        }
        let ours = self.snapshot.locks.iter().filter(|found| found.holder.uid == self.snapshot.uid);
        let release =
            |found: &LockFacts| Effect::ReleaseLock { lease: found.lease.clone(), found: version(found) };
        self.effects.extend(ours.map(release));
    }
}

fn version(found: &LockFacts) -> LeaseVersion {
    LeaseVersion { uid: found.uid.clone(), resource_version: found.resource_version.clone() }
}
