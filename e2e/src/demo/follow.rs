//! Looks at the shop again and again and tells what changes, until something is the case.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::shop::Shop;
use super::state::{Ended, Pod, Stage, State};
use crate::interrupt;
use crate::progress::Step;

const EVERY: Duration = Duration::from_millis(250);
const LONGEST: f64 = 240.0;

/// A change of the shop, and what comes of it.
pub(super) struct Follow<'a> {
    shop: Shop<'a>,
    image: String,
    changed: Timestamp,
    known: BTreeSet<String>,
    pods: (usize, usize),
    told_of: Option<String>,
    quoted: bool,
    result: Option<Ended>,
}

impl<'a> Follow<'a> {
    /// Changes the shop's image by `change`, and starts the clock.
    pub(super) fn change(shop: Shop<'a>, image: &str, change: impl FnOnce() -> Result<()>) -> Result<Self> {
        // On a first install there is no Migrator to ask, and nothing that it knows.
        let known = shop.state().map(|state| state.ended.into_iter().map(|run| run.job).collect());
        let changed = Timestamp::now();
        change()?;
        Ok(Self {
            shop,
            image: image.to_owned(),
            changed,
            known: known.unwrap_or_default(),
            pods: (0, 0),
            told_of: None,
            quoted: false,
            result: None,
        })
    }

    /// When it was changed.
    pub(super) fn changed(&self) -> Timestamp {
        self.changed
    }

    /// The first migration that ended since, if any did.
    pub(super) fn migration(&self) -> Option<Ended> {
        self.result.clone()
    }

    /// Tells what happens until `reached` says that it was waited for; returns when that was.
    pub(super) fn until(&mut self, what: &str, reached: impl Fn(&State) -> bool) -> Result<Timestamp> {
        let _step = Step::start(format!("waiting for {what}"));
        loop {
            let state = self.shop.state()?;
            let now = Timestamp::now();
            self.tell(&state, now);
            if reached(&state) {
                return Ok(now);
            }
            if interrupt::raised() {
                bail!("interrupted while waiting for {what}");
            }
            if self.since(now) > LONGEST {
                bail!("{what}: not within {LONGEST} s");
            }
            thread::sleep(EVERY);
        }
    }

    /// Until web and worker run the image.
    pub(super) fn until_rolled_out(&mut self) -> Result<Timestamp> {
        let image = self.image.clone();
        let all = |state: &State| {
            state.rolled_out && state.pods.iter().all(|pod| pod.leaving || pod.image == image)
        };
        let ready = self.until("the last Pod to be ready", all)?;
        self.line(ready, "the last Pod is ready");
        Ok(ready)
    }

    /// A line of the story.
    pub(super) fn line(&self, at: Timestamp, text: &str) {
        println!("  {:>6.1} s  {text}", self.since(at));
    }

    fn since(&self, at: Timestamp) -> f64 {
        at.duration_since(self.changed).as_secs_f64()
    }

    fn tell(&mut self, state: &State, now: Timestamp) {
        // A waiter that has nothing to wait for is gone in a moment.
        let waits = !state.done.contains(&self.image);
        let waiting = if waits { state.count(&self.image, Stage::Waiting) } else { 0 };
        let pods = (waiting, state.count(&self.image, Stage::Ready));
        if pods != self.pods {
            let (waiting, ready) = pods;
            let serves = |pod: &&Pod| pod.image != self.image && pod.stage == Stage::Ready && !pod.leaving;
            let old = state.pods.iter().filter(serves).count();
            let old = if old == 0 { String::new() } else { format!("; {old} of other versions serve") };
            self.line(now, &format!("Pods of {}: {waiting} wait, {ready} ready{old}", self.image));
            self.pods = pods;
        }
        if let Some(run) = &state.running
            && self.told_of.as_ref() != Some(&run.job)
        {
            self.line(now, &format!("Job {} runs the migrations (attempt {})", run.job, run.attempt));
            self.told_of = Some(run.job.clone());
        }
        if let (Some(_), Some(pod), false) = (&state.running, state.waiting_pod(&self.image), self.quoted) {
            // It may have nothing to say yet.
            let said = self.shop.waiter_log(pod, 1).unwrap_or_default();
            if !said.is_empty() {
                self.line(now, &format!("meanwhile {pod} says: {said}"));
                self.quoted = true;
            }
        }
        for run in state.ended.iter().rev() {
            if self.known.insert(run.job.clone()) {
                let took = run.finished.duration_since(run.started).as_secs_f64();
                self.line(
                    now,
                    &format!("the migration of {} ended after {took:.1} s: {}", run.image, run.result),
                );
                // A retry of an earlier version may have been under way.
                if run.image == self.image {
                    self.result.get_or_insert_with(|| run.clone());
                }
            }
        }
    }
}
