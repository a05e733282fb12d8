//! Pods that wait for what will never be run: their workload has gone on (contract §3).

use std::collections::BTreeMap;

use migrations_api::{Reason, SupersededRevision};

use super::Draft;
use crate::plan::{Effect, Event};
use crate::survey::{Member, Survey};
use crate::workload::{Revision, left_alone};

impl Draft<'_> {
    /// Says so in the status, for their waiters; deletes those that nobody would replace; and tells of
    /// Jobs, which nobody will replace at all.
    pub(super) fn supersede(&mut self, survey: &Survey<'_>) {
        let name = &self.snapshot.name;
        // Another revision with the same key is due, or will be: its run releases them too.
        let running = self.status.current.as_ref().map(|run| &run.key);
        let awaited = |member: &Member<'_>| {
            let key = &member.origin.key;
            let next = member.origin.workload.as_ref().is_some_and(|workload| workload.image == *key);
            next || running == Some(key)
                || survey.members.iter().any(|it| it.current() && it.origin.key == *key)
        };
        let superseded = survey.members.iter().filter(|member| {
            member.origin.revision == Revision::Older
                && member.waits(name)
                && !member.released(&self.status.done)
                && !awaited(member)
        });
        let mut revisions: BTreeMap<&String, String> = BTreeMap::new();
        for member in superseded {
            let Some(workload) = &member.origin.workload else { continue };
            // While the gate is open they are about to start.
            if left_alone(member.pod, workload) && !self.snapshot.requests.open {
                let Member { pod, origin, .. } = member;
                self.effects.push(Effect::DeletePod { name: pod.name.clone(), uid: pod.uid.clone() });
                self.events.push(Event {
                    warning: false,
                    reason: Reason::Superseded,
                    note: format!(
                        "deleted Pod {}, whose application never started: {} {} has gone on from {} and wouldn't \
                         replace it by itself",
                        pod.name, origin.reference.kind, origin.reference.name, origin.key
                    ),
                    workload: Some(member.source()),
                });
                continue;
            }
            let id = member.tie();
            let reason = reason(member);
            let known = self.snapshot.status.superseded.iter().any(|one| one.revision == *id);
            if !known && !revisions.contains_key(id) && !workload.long_running {
                self.events.push(Event {
                    warning: true,
                    reason: Reason::Superseded,
                    note: format!("Pod {} waits in vain: {reason}", member.pod.name),
                    workload: Some(member.source()),
                });
            }
            revisions.insert(id, reason);
        }
        self.status.superseded = revisions
            .into_iter()
            .map(|(revision, reason)| SupersededRevision { revision: revision.clone(), reason })
            .collect();
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
    match pod.owner.as_ref().filter(|owner| owner.kind == "Job") {
        Some(job) => format!(
            "{kind} {name} has gone on from {key}, whose migrations were never run; delete Job {} with 'kubectl \
             delete job {}', or set the {kind} back to have them run",
            job.name, job.name
        ),
        None => format!(
            "{kind} {name} has gone on from {key}, whose migrations were never run; a new Pod takes this one's \
             place, and setting the {kind} back would have them run"
        ),
    }
}
