//! Pods that wait for what will never be run: their workload has gone on (contract §3).

use std::collections::{BTreeMap, BTreeSet};

use migrations_api::{Reason, SupersededRevision};

use super::Draft;
use crate::plan::{Effect, Event};
use crate::survey::{Member, Survey};
use crate::workload::{Revision, left_alone};

/// How many revisions the status names: each Job is one, and an object has room for some thousands.
pub const MOST_SUPERSEDED: usize = 100;

/// What becomes of a held Pod of an older revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A run of the same key is under way or due, and releases it.
    Awaits,
    /// Its workload is about to make the Pod that has it replaced, or released: the image is the same.
    Next,
    /// Nobody else would replace it: it is deleted.
    Deleted,
    /// It waits in vain, which is told.
    Superseded,
}

impl Draft<'_> {
    /// Held Pods of older revisions that nothing has released, and what becomes of each.
    pub(super) fn left_behind<'m, 's>(&self, survey: &'m Survey<'s>) -> Vec<(&'m Member<'s>, Fate)> {
        let (name, done) = (&self.snapshot.name, &self.status.done);
        let due = survey.members.iter().filter(|it| it.current() && it.leads && !it.released(done));
        let mut keys: BTreeSet<&str> = due.map(|member| member.origin.key.as_str()).collect();
        keys.extend(self.status.current.as_ref().map(|run| run.key.as_str()));
        let fate = |member: &Member<'_>| {
            let key = &member.origin.key;
            let workload = member.origin.workload.as_ref()?;
            let left_alone = left_alone(member.pod, workload);
            Some(if keys.contains(key.as_str()) {
                Fate::Awaits
            } else if left_alone && !self.snapshot.requests.open {
                // While the gate is open they are about to start.
                Fate::Deleted
            } else if workload.image == *key && workload.long_running && !left_alone {
                Fate::Next
            } else {
                Fate::Superseded
            })
        };
        let held = survey.members.iter().filter(|member| {
            member.origin.revision == Revision::Older && member.waits(name) && !member.released(done)
        });
        held.filter_map(|member| Some((member, fate(member)?))).collect()
    }

    /// Says so in the status, for their waiters; deletes those that nobody would replace; and tells of
    /// Jobs, which nobody will replace at all.
    pub(super) fn supersede(&mut self, survey: &Survey<'_>) {
        let mut revisions: BTreeMap<&str, &Member<'_>> = BTreeMap::new();
        for (member, fate) in self.left_behind(survey) {
            match fate {
                Fate::Awaits => {}
                Fate::Deleted => self.delete_superseded(member),
                Fate::Next | Fate::Superseded => {
                    let first = revisions.entry(member.tie()).or_insert(member);
                    // Whatever the order.
                    if member.pod.name < first.pod.name {
                        *first = member;
                    }
                }
            }
        }
        let before = &self.snapshot.status.superseded;
        let known: BTreeSet<&str> = before.iter().map(|one| one.revision.as_str()).collect();
        let mut named: Vec<_> = revisions.into_iter().collect();
        // A new one doesn't push out another, which would be told again.
        named.sort_by_key(|(id, _)| !known.contains(id));
        named.truncate(MOST_SUPERSEDED);
        named.sort_by_key(|(id, _)| *id);
        self.status.superseded.clear();
        for (id, member) in named {
            let reason = reason(member);
            if !known.contains(id) && !member.origin.long_running() {
                self.events.push(Event {
                    warning: true,
                    reason: Reason::Superseded,
                    note: format!("Pod {} waits in vain: {reason}", member.pod.name),
                    workload: Some(member.source()),
                });
            }
            self.status.superseded.push(SupersededRevision { revision: id.to_owned(), reason });
        }
    }

    fn delete_superseded(&mut self, member: &Member<'_>) {
        let Member { pod, origin, .. } = member;
        self.effects.push(Effect::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
        self.events.push(Event {
            warning: false,
            reason: Reason::Superseded,
            note: format!(
                "deleted Pod {}, whose application never started: {} {} has gone on from the template that it was \
                 made from, and wouldn't replace it by itself",
                pod.name, origin.reference.kind, origin.reference.name
            ),
            workload: Some(member.source()),
        });
    }
}

/// What replaced the Pod's revision, and the way out.
fn reason(member: &Member<'_>) -> String {
    let Member { pod, origin, .. } = member;
    let (kind, name, key) = (&origin.reference.kind, &origin.reference.name, &origin.key);
    if origin.untold() {
        return format!(
            "{kind} {name} has another image than {key} in its template by now, or another webhook rewrites its \
             Pods' images, and nothing tells which; delete the Pod in the first case"
        );
    }
    let same_image = origin.workload.as_ref().is_some_and(|workload| workload.image == *key);
    let gone_on = if same_image {
        format!(
            "{kind} {name} has gone on from the template that it was made from, and the migrations of {key} wait \
             for a Pod of the new one"
        )
    } else {
        format!("{kind} {name} has gone on from {key}, whose migrations were never run")
    };
    match pod.owner.as_ref().filter(|owner| owner.kind == "Job") {
        Some(job) => format!(
            "{gone_on}; delete Job {} with 'kubectl delete job {}', or set the {kind} back to have them run",
            job.name, job.name
        ),
        None => format!(
            "{gone_on}; a new Pod takes this one's place, and setting the {kind} back would have them run"
        ),
    }
}
