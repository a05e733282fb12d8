//! What is recorded as done without a run, which revisions are tied to it, and what is forgotten
//! (contract §3, §5).

use std::collections::BTreeSet;

use migrations_api::{DoneKey, How, RerunOn, RunResult};

use super::Draft;
use crate::due::is_done;
use crate::survey::{Member, Survey};
use crate::validate::Valid;
use crate::workload::Revision;

/// How many ended runs the status keeps.
const HISTORY: usize = 10;

/// How many there may be with those that keep a key from being run by itself.
const MOST_RECORDS: usize = 50;

/// How many done keys the status keeps beyond those that Pods still have, and how many revisions of
/// each. A Deployment's own history has eleven, and whatever it can be rolled back to is to be here.
const DONE: usize = 20;

impl Draft<'_> {
    /// The original kept one image as its only memory: it stays done. Where that is `spec.image`, which
    /// is no Pod's, whatever has started by then is done.
    pub(super) fn adopt_original(&mut self, surveyed: Option<(&Valid, &Survey<'_>)>) {
        if !self.status.done.is_empty() || !self.status.history.is_empty() {
            return;
        }
        let Some(image) = self.status.last_successful_migration.clone() else { return };
        self.status.done.push(DoneKey::new(image.clone(), image.clone(), How::Succeeded));
        let Some((valid, survey)) = surveyed else { return };
        self.status.run_image.clone_from(&valid.run.image);
        if valid.run.image.as_ref() == Some(&image) {
            for member in survey.members.iter().filter(|member| member.pod.application_started()) {
                self.baseline(member);
            }
        }
    }

    /// An image that someone says is migrated: a database mended by hand, or restored.
    pub(super) fn record_marks(&mut self, valid: &Valid, survey: &Survey<'_>) {
        let Some(image) = self.snapshot.requests.done.clone() else { return };
        let keys: Vec<_> = match valid.rerun_on {
            RerunOn::Image => vec![image.clone()],
            RerunOn::Template => survey
                .members
                .iter()
                .filter(|member| member.origin.image == image)
                .map(|member| member.origin.key.clone())
                .collect(),
        };
        for key in keys {
            if !is_done(&self.status.done, &key) {
                self.status.done.insert(0, DoneKey::new(key, image.clone(), How::Marked));
            }
        }
    }

    /// Pods that serve from an older revision prove that it needs no run; recorded, so that they can
    /// always be replaced. Not where the newest revision has the same key (a restart of Pods that are
    /// older than the gate): that one gets its run. Nor where its run is under way: that decides.
    pub(super) fn record_baselines(&mut self, survey: &Survey<'_>) {
        let mut at_work: BTreeSet<&str> =
            survey.members.iter().filter(|it| it.current()).map(|it| it.origin.key.as_str()).collect();
        let running = self.status.current.as_ref().map(|run| run.key.clone());
        at_work.extend(running.as_deref());
        for member in survey.members.iter().filter(|it| it.origin.revision == Revision::Older) {
            let served = member.pod.application_started() && !at_work.contains(member.origin.key.as_str());
            if served && !member.released(&self.status.done) {
                self.baseline(member);
            }
        }
    }

    fn baseline(&mut self, member: &Member<'_>) {
        let key = &member.origin.key;
        if !is_done(&self.status.done, key) {
            self.status.done.push(DoneKey::new(key.clone(), member.origin.image.clone(), How::Baseline));
        }
    }

    /// Another `spec.image` makes what is deployed due once more, and holds nobody. Not before a run
    /// that is under way has ended: until then it isn't known which image its key is done by.
    pub(super) fn notice_run_image(&mut self, valid: &Valid, survey: &Survey<'_>) {
        if self.status.run_image == valid.run.image || self.status.current.is_some() {
            return;
        }
        self.status.run_image.clone_from(&valid.run.image);
        self.rerun(survey, |one| {
            let wanted = valid.run.image.as_ref().unwrap_or(&one.key);
            one.how == How::Succeeded && one.image != *wanted
        });
    }

    /// Makes the done keys of what is deployed due once more, where `which` says so.
    pub(super) fn rerun(&mut self, survey: &Survey<'_>, which: impl Fn(&DoneKey) -> bool) {
        let deployed =
            |key: &str| survey.members.iter().any(|it| it.current() && it.leads && it.origin.key == key);
        for one in self.status.done.iter_mut().filter(|one| which(one)) {
            one.rerun |= deployed(&one.key);
        }
    }

    /// Ties revisions to done keys where the image that admission saw doesn't release their Pods:
    /// another webhook rewrote it, the key is more than an image, or the Pods follow others. What they
    /// follow are the keys of the Pods that lead, all of them done. Pods that no revision tells from
    /// others are tied one by one.
    pub(super) fn tie_revisions(&mut self, valid: &Valid, survey: &Survey<'_>) {
        let name = &self.snapshot.name;
        let mut leading = survey.members.iter().filter(|it| it.current() && it.leads).peekable();
        let followed = leading.peek().map(|member| member.origin.key.clone());
        let followed = followed.filter(|_| leading.all(|it| it.released(&self.status.done)));
        for member in &survey.members {
            let done = &self.status.done;
            let by_image = valid.rerun_on == RerunOn::Image && member.released_by_image(done);
            let key = if is_done(done, &member.origin.key) {
                (!by_image && member.waits(name)).then(|| member.origin.key.clone())
            } else if !member.leads && member.current() && !member.released(done) {
                // Also one that was never held: what it follows is what it would have waited for.
                followed.clone().filter(|_| member.waits(name) || member.ungated(name))
            } else {
                None
            };
            let Some(key) = key else { continue };
            let tie = member.tie();
            if let Some(one) = self.status.done.iter_mut().find(|one| one.key == key)
                && !one.revisions.contains(tie)
            {
                one.revisions.insert(0, tie.clone());
            }
        }
    }

    /// Keeps the newest, and whatever a Pod still names (contract §5, S5).
    pub(super) fn trim(&mut self, survey: &Survey<'_>) {
        let members = || survey.members.iter();
        let keys: BTreeSet<_> = members().map(|member| member.origin.key.as_str()).collect();
        let revisions: BTreeSet<_> = members().filter_map(|member| member.origin.id.as_deref()).collect();
        let uids: BTreeSet<_> = members().map(|member| member.pod.uid.as_str()).collect();
        // Whether a Pod is tied by that, or was.
        let named = |id: &String| revisions.contains(id.as_str()) || uids.contains(id.as_str());
        for one in &mut self.status.done {
            // Pods come and go faster than revisions, and must not have these forgotten.
            let (mut revisions, mut uids) = (0, 0);
            one.revisions.retain(|id| {
                let kept = if id.contains('/') { &mut revisions } else { &mut uids };
                *kept += 1;
                *kept <= DONE || named(id)
            });
        }
        let mut kept = 0;
        self.status.done.retain(|one| {
            kept += 1;
            kept <= DONE || keys.contains(one.key.as_str()) || one.revisions.iter().any(named)
        });
        // The newest of a key says whether it may be run by itself: without a result it never is, else
        // it matters to those that have such Pods.
        let rests = |key: &str| self.status.done.iter().any(|one| one.key == key && !one.rerun);
        let (mut kept, mut newest) = (0, BTreeSet::new());
        self.status.history.retain(|record| {
            kept += 1;
            let says = newest.insert(record.key.clone())
                && !rests(&record.key)
                && (record.result == RunResult::Unknown || keys.contains(record.key.as_str()));
            kept <= HISTORY || (says && kept <= MOST_RECORDS)
        });
    }
}
