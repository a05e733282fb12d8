//! The run that the status names: from its claim to its record.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use migrations_api::{CurrentRun, DoneKey, How, Reason, RunRecord, RunResult, names};

use super::Draft;
use super::unstarted::helped;
use crate::due::{Attempt, Due, attempt, given_up};
use crate::job::{self, RunIdentity};
use crate::plan::Effect;
use crate::result::{Ended, Progress, progress};
use crate::snapshot::{JobFacts, PodFacts};
use crate::status::Standing;
use crate::validate::Valid;

/// Why a run is given up that was never let go: no record of that is of use.
const NEEDLESS: &str = "no run of that spec and template is due any more";

/// What a run is made from, and what else is due.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    /// The spec.
    pub(super) valid: &'w Valid,
    /// What is due.
    pub(super) due: &'w [Due<'w>],
    /// Token of the newest run that was asked for.
    pub(super) request: Option<&'w str>,
}

impl Draft<'_> {
    /// Moves the current run on. `wanted` is what a missing Job is made from; there is none while
    /// the spec is refused. `None`: there is no current run (any more).
    pub(super) fn advance(&mut self, wanted: Option<Wanted<'_>>) -> Option<Standing> {
        let run = self.status.current.clone()?;
        let job = self.snapshot.jobs.iter().find(|job| job.name == run.job);
        match (&run.job_uid, job) {
            (None, None) => self.create(&run, wanted),
            (None, Some(job)) => self.bind(run, job, wanted),
            (Some(uid), job) => {
                let job = job.filter(|job| job.uid == *uid);
                // One that somebody suspended in the middle is not started a second time.
                let startable = |job: &&JobFacts| {
                    job.suspended && job.outcome.is_none() && run.given_up.is_none() && !self.has_started(uid)
                };
                match job.filter(startable) {
                    Some(job) => self.start(&run, job, wanted),
                    None => self.watch(&run, job, uid, wanted),
                }
            }
        }
    }

    /// The claim is written, its Job is not there: made from the same source as it stands, or the
    /// claim is given back because spec, template or what is due has changed.
    fn create(&mut self, run: &CurrentRun, wanted: Option<Wanted<'_>>) -> Option<Standing> {
        let identity = identity(run);
        let rendered = wanted.and_then(|Wanted { valid, due, request }| {
            let due = due.iter().find(|due| due.key == run.key)?;
            let template = due.template(valid, request, &run.run_hash)?;
            job::render(valid, self.snapshot, template, &identity).ok()
        });
        let Some(job) = rendered else {
            self.status.current = None;
            return None;
        };
        if let Some(why) = self.snapshot.create_refused.as_ref().filter(|_| self.is_overtaken(run, wanted)) {
            let message = format!("given up before its Job was created: {why}");
            self.record(run, Ended { result: RunResult::NotStarted, message, started: None, finished: None });
            return None;
        }
        self.effects.push(Effect::CreateJob(Box::new(job.job)));
        Some(match &self.snapshot.create_refused {
            Some(why) => refused(run, why),
            None => pending(run),
        })
    }

    /// A Job of the claimed name exists: bound where it is this run's own, made again where it is a
    /// leftover of ours that never started, else left alone.
    fn bind(&mut self, mut run: CurrentRun, job: &JobFacts, wanted: Option<Wanted<'_>>) -> Option<Standing> {
        let has_pod = self.snapshot.run_pods.iter().any(|pod| !pod.gone && pod.belongs_to(&job.uid));
        if identity(&run).agrees(job, &self.snapshot.uid) && !job.terminating {
            run.job_uid = Some(job.uid.clone());
            self.status.current = Some(run.clone());
            return if job.suspended && job.outcome.is_none() {
                self.start(&run, job, wanted)
            } else {
                Some(running(&run, ""))
            };
        }
        let ours = job.owner_uid.as_deref() == Some(self.snapshot.uid.as_str());
        if ours && ((job.suspended && !has_pod) || job.terminating) {
            self.effects.push(job.deletion());
            return Some(pending(&run));
        }
        Some(Standing::stalled(
            Reason::ForeignJob,
            format!(
                "Job {} exists, but is not the migration of {}; delete it with 'kubectl delete job {} -n {}'",
                job.name, run.key, job.name, self.snapshot.namespace
            ),
        ))
    }

    /// The bound Job is let go, unless another run's Pod could still be at work, the lock was lost
    /// meanwhile, or nothing may start. `None`: the spec is refused.
    fn start(&mut self, run: &CurrentRun, job: &JobFacts, wanted: Option<Wanted<'_>>) -> Option<Standing> {
        if job.terminating {
            return Some(pending(run));
        }
        if let Some(standing) = self.earlier_run(Some(&job.uid)) {
            return Some(standing);
        }
        let Wanted { valid, due, request } = wanted?;
        let record = self.status.done.iter().find(|done| done.key == run.key);
        let mut same = due.iter().filter(|due| due.key == run.key);
        let same = same.any(|due| due.template(valid, request, &run.run_hash).is_some());
        if !same || record.is_some_and(|done| !done.rerun) {
            // Marked as done, rolled back, or made of a spec or template that has changed, before its start,
            // which something may have held back for long. The claim is kept until the Job is gone: a
            // controller that was held up in the same place may yet start it.
            if let Some(current) = &mut self.status.current {
                current.given_up = Some(NEEDLESS.to_owned());
            }
            return self.give_up(run, Some(job), &[], Progress::NotStarted(String::new()), NEEDLESS);
        }
        if valid.suspend {
            return Some(Standing::stalled(
                Reason::Suspended,
                format!("migration of {} doesn't start while spec.suspend is true", run.key),
            ));
        }
        if let Some(standing) = self.without_lock(valid) {
            return Some(standing);
        }
        if let Some(current) = &mut self.status.current {
            current.started = MicroTime(self.now);
        }
        self.effects.push(Effect::StartJob {
            name: job.name.clone(),
            uid: job.uid.clone(),
            resource_version: job.resource_version.clone(),
        });
        if let Some(why) = &self.snapshot.create_refused {
            return Some(refused(run, why));
        }
        self.tell(false, Reason::Running, format!("migrating {} in Job {}", run.key, job.name));
        Some(running(run, ""))
    }

    /// The run was started: its result is recorded as soon as its container has ended.
    fn watch(
        &mut self,
        run: &CurrentRun,
        job: Option<&JobFacts>,
        uid: &str,
        wanted: Option<Wanted<'_>>,
    ) -> Option<Standing> {
        let pods: Vec<_> = self.snapshot.run_pods.iter().filter(|pod| pod.belongs_to(uid)).collect();
        let progress = progress(job, &pods, self.snapshot.policy.hide_output);
        let ends = job.is_none_or(|job| job.terminating);
        // What was to be given up has started before its Job was deleted: it goes on. So does what was let
        // go, by a controller that was held up, after it was found needless: its container may start at any
        // moment (contract §5, S4).
        let let_go = job.is_some_and(|job| !job.terminating && !job.suspended && job.outcome.is_none());
        let goes_on = |why: &str| (progress == Progress::Running && !ends) || (why == NEEDLESS && let_go);
        if let Some(why) = run.given_up.as_ref().filter(|why| !goes_on(why)) {
            return self.give_up(run, job, &pods, progress, why);
        }
        if let Some(current) = &mut self.status.current {
            current.given_up = None;
        }
        match progress {
            Progress::Running => Some(running(run, "")),
            Progress::NotStarted(why) => {
                let why = self.why_not_started(run, job, &why);
                let stuck = !why.is_empty() && self.is_overtaken(run, wanted);
                if job.is_some_and(|job| !job.terminating) && stuck {
                    if let Some(current) = &mut self.status.current {
                        current.given_up = Some(why.clone());
                    }
                    return self.give_up(run, job, &pods, Progress::NotStarted(String::new()), &why);
                }
                Some(running(run, &why))
            }
            Progress::Ended(ended) => {
                self.record(run, ended);
                None
            }
        }
    }

    /// Deletes the Job of a run that can't start, and waits until none of its Pods is unfinished: its
    /// container may have started in that very moment, and then its result counts (contract §3).
    fn give_up(
        &mut self,
        run: &CurrentRun,
        job: Option<&JobFacts>,
        pods: &[&PodFacts],
        progress: Progress,
        why: &str,
    ) -> Option<Standing> {
        if let Some(job) = job.filter(|job| !job.terminating && job.outcome.is_none()) {
            self.effects.push(job.deletion());
        }
        let over = job.is_none_or(|job| job.outcome.is_some()) && !pods.iter().any(|pod| pod.unfinished());
        let started = run.job_uid.as_deref().is_some_and(|uid| self.has_started(uid));
        match progress {
            Progress::Ended(ended) if started => self.record(run, ended),
            Progress::Running => return Some(running(run, "")),
            _ if over && why == NEEDLESS => self.status.current = None,
            _ if over => {
                let message = format!("given up before its container started: {why}");
                let ended = Ended { result: RunResult::NotStarted, message, started: None, finished: None };
                self.record(run, ended);
            }
            _ => return Some(running(run, &format!("{why}; it is being given up"))),
        }
        None
    }

    /// Whether the migration's container is known to have started in a Pod of that Job.
    fn has_started(&self, job_uid: &str) -> bool {
        let pods = self.snapshot.run_pods.iter().filter(|pod| pod.belongs_to(job_uid));
        let mut containers = pods.filter_map(|pod| pod.key_container(Some(names::RUN_CONTAINER)));
        containers.any(|container| container.state.has_started())
    }

    /// Whether a run whose container can't start is nobody's any more, or stands in the way of one that
    /// is due now. One that was given up before doesn't count, else two of them would take turns for
    /// ever.
    fn is_overtaken(&self, run: &CurrentRun, wanted: Option<Wanted<'_>>) -> bool {
        let Some(Wanted { valid, due, request }) = wanted else { return false };
        if !due.iter().any(|due| due.key == run.key) {
            return true;
        }
        let history = &self.status.history;
        due.iter().any(|due| {
            due.choose(valid, &self.status, request).is_some_and(|choice| {
                let changed = due.key != run.key
                    || (choice.run_hash != run.run_hash
                        && due.template(valid, request, &run.run_hash).is_none());
                let attempt =
                    attempt(history, due.key, &choice.run_hash, request, valid.backoff_limit, self.now);
                changed
                    && matches!(attempt, Attempt::Now { .. })
                    && !given_up(history, due.key, &choice.run_hash)
            })
        })
    }

    /// The result goes into the status; Pods of a done key are released by that alone.
    fn record(&mut self, run: &CurrentRun, ended: Ended) {
        let Ended { result, message, started, finished } = ended;
        let CurrentRun { key, image, job, attempt, run_hash, request, failures, started: claimed, .. } =
            run.clone();
        let attempts = failures.saturating_add(1);
        let (warning, reason, note) = match result {
            RunResult::Succeeded => {
                self.record_success(&key, &image);
                let took = took(started, finished);
                (false, Reason::Migrated, format!("migrated {key} in Job {job}{took}"))
            }
            RunResult::NotStarted => (true, Reason::GivenUp, format!("migration of {key}: {message}")),
            RunResult::Failed => (
                true,
                Reason::MigrationFailed,
                format!("migration of {key} failed (Job {job}, attempt {attempts}): {message}"),
            ),
            RunResult::Unknown => (
                true,
                Reason::ResultUnknown,
                format!("migration of {key} (Job {job}) left no result: {message}"),
            ),
        };
        self.failure_told = matches!(result, RunResult::Failed | RunResult::Unknown);
        self.tell(warning, reason, note);
        let started = started.map_or(claimed, MicroTime);
        let finished = MicroTime(finished.unwrap_or(self.now));
        // Attempts at the same are one record: the last of them, and how many there were.
        let newest = self.status.history.iter().position(|record| record.key == key);
        let same = |record: &RunRecord| record.run_hash == run_hash && record.result == RunResult::Failed;
        if let Some(index) = newest.filter(|index| self.status.history.get(*index).is_some_and(same)) {
            self.status.history.remove(index);
        }
        let record = RunRecord {
            key,
            image,
            job,
            attempt,
            attempts,
            run_hash,
            request,
            started,
            finished,
            result,
            message,
        };
        self.status.history.insert(0, record);
        self.status.current = None;
    }

    /// What is tied to the key stays tied.
    fn record_success(&mut self, key: &str, image: &str) {
        let done = &mut self.status.done;
        let before = done.iter().position(|one| one.key == key).map(|index| done.remove(index));
        let mut record = DoneKey::new(key.to_owned(), image.to_owned(), How::Succeeded);
        record.revisions = before.map(|before| before.revisions).unwrap_or_default();
        done.insert(0, record);
        self.status.last_successful_migration = Some(image.to_owned());
    }

    /// Nothing starts while a Pod of any other run of this Migrator is unfinished, whosever it is,
    /// or a Job may be about to make one (contract §5).
    pub(super) fn earlier_run(&self, own_job: Option<&str>) -> Option<Standing> {
        let foreign_pod =
            |pod: &&PodFacts| pod.unfinished() && !own_job.is_some_and(|uid| pod.belongs_to(uid));
        let foreign_job =
            |job: &&JobFacts| job.outcome.is_none() && !job.suspended && Some(job.uid.as_str()) != own_job;
        let pod = self.snapshot.run_pods.iter().find(foreign_pod).map(|pod| ("Pod", &pod.name));
        let job = || self.snapshot.jobs.iter().find(foreign_job).map(|job| ("Job", &job.name));
        let (kind, name) = pod.or_else(job)?;
        let when = match kind {
            "Pod" => "if its node is lost",
            _ => "if it is not to go on",
        };
        Some(Standing::reconciling(
            Reason::EarlierRunUnfinished,
            format!(
                "{kind} {name} of an earlier run is not finished; nothing starts beside it. See 'kubectl describe \
                 {} {name} -n {}'; {when}, make sure that its migration has ended before you delete it",
                kind.to_lowercase(),
                self.snapshot.namespace
            ),
        ))
    }
}

fn identity(run: &CurrentRun) -> RunIdentity {
    RunIdentity { key: run.key.clone(), attempt: run.attempt, run_hash: run.run_hash.clone() }
}

fn pending(run: &CurrentRun) -> Standing {
    Standing::reconciling(Reason::Pending, format!("migration of {} is about to start", run.key))
}

/// Its Job is not created, or not started, and tried again.
fn refused(run: &CurrentRun, why: &str) -> Standing {
    let message = format!("the API server refuses Job {} of the migration of {}: {why}", run.job, run.key);
    Standing::stalled(Reason::JobRefused, helped(&message))
}

fn running(run: &CurrentRun, why_not_started: &str) -> Standing {
    let CurrentRun { key, job, .. } = run;
    if why_not_started.is_empty() {
        return Standing::reconciling(Reason::Running, format!("migrating {key} in Job {job}"));
    }
    let message = format!("migration of {key} has not started in Job {job}: {why_not_started}");
    Standing::reconciling(Reason::Pending, message)
}

fn took(started: Option<Timestamp>, finished: Option<Timestamp>) -> String {
    match (started, finished) {
        (Some(started), Some(finished)) => {
            format!(", which took {} s", finished.as_second().saturating_sub(started.as_second()))
        }
        _ => String::new(),
    }
}
