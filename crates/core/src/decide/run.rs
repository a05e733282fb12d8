//! The run that the status names: from its claim to its record.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use migrations_api::{CurrentRun, DoneKey, How, Reason, RunRecord, RunResult};

use super::Draft;
use crate::due::{Due, blocked, given_up};
use crate::job::{self, RunIdentity};
use crate::plan::{Effect, Event};
use crate::result::{Ended, Progress, progress};
use crate::snapshot::{JobFacts, PodFacts};
use crate::status::Standing;
use crate::validate::Valid;

/// How long a started Job may be without a Pod before that is told, in seconds.
const NO_POD_AFTER: i64 = 15;

impl Draft<'_> {
    /// Moves the current run on. `wanted` is what a missing Job is made from; there is none while
    /// the spec is refused. `None`: there is no current run (any more).
    pub(super) fn advance(&mut self, wanted: Option<(&Valid, &[Due<'_>])>) -> Option<Standing> {
        let run = self.status.current.clone()?;
        let job = self.snapshot.jobs.iter().find(|job| job.name == run.job);
        match (&run.job_uid, job) {
            (None, None) => self.create(&run, wanted),
            (None, Some(job)) => Some(self.bind(run, job)),
            (Some(uid), job) => {
                let job = job.filter(|job| job.uid == *uid);
                match job.filter(|job| job.suspended && job.outcome.is_none()) {
                    Some(job) => Some(self.start(&run, job)),
                    None => self.watch(&run, job, uid, wanted),
                }
            }
        }
    }

    /// The claim is written, its Job is not there: made from the same source as it stands, or the
    /// claim is given back because spec, template or what is due has changed.
    fn create(&mut self, run: &CurrentRun, wanted: Option<(&Valid, &[Due<'_>])>) -> Option<Standing> {
        let identity = identity(run);
        let rendered = wanted.and_then(|(valid, due)| {
            let due = due.iter().find(|due| due.key == run.key)?;
            let template = due.source.workload.template;
            let same = job::run_hash(valid, template) == run.run_hash;
            same.then(|| job::render(valid, self.snapshot, template, &identity).ok()).flatten()
        });
        let Some(job) = rendered else {
            self.status.current = None;
            return None;
        };
        self.effects.push(Effect::CreateJob(Box::new(job.job)));
        Some(match &self.snapshot.create_refused {
            Some(why) => Standing::stalled(
                Reason::JobRefused,
                format!("the API server refuses Job {} of the migration of {}: {why}", run.job, run.key),
            ),
            None => pending(run),
        })
    }

    /// A Job of the claimed name exists: bound where it is this run's own, made again where it is a
    /// leftover of ours that never started, else left alone.
    fn bind(&mut self, mut run: CurrentRun, job: &JobFacts) -> Standing {
        let has_pod = self.snapshot.run_pods.iter().any(|pod| belongs(pod, &job.uid));
        if identity(&run).agrees(job, &self.snapshot.uid) && !job.terminating {
            run.job_uid = Some(job.uid.clone());
            self.status.current = Some(run.clone());
            return if job.suspended && job.outcome.is_none() {
                self.start(&run, job)
            } else {
                running(&run, "")
            };
        }
        let ours = job.owner_uid.as_deref() == Some(self.snapshot.uid.as_str());
        if ours && ((job.suspended && !has_pod) || job.terminating) {
            self.effects.push(Effect::DeleteJob { name: job.name.clone(), uid: job.uid.clone() });
            return pending(&run);
        }
        Standing::stalled(
            Reason::ForeignJob,
            format!(
                "Job {} exists, but is not the migration of {}; delete it with 'kubectl delete job {} -n {}'",
                job.name, run.key, job.name, self.snapshot.namespace
            ),
        )
    }

    /// The bound Job is let go, unless another run's Pod could still be at work.
    fn start(&mut self, run: &CurrentRun, job: &JobFacts) -> Standing {
        if job.terminating {
            return pending(run);
        }
        if let Some(standing) = self.earlier_run(Some(&job.uid)) {
            return standing;
        }
        self.effects.push(Effect::StartJob {
            name: job.name.clone(),
            uid: job.uid.clone(),
            resource_version: job.resource_version.clone(),
        });
        self.tell(false, Reason::Running, format!("migrating {} in Job {}", run.key, job.name));
        running(run, "")
    }

    /// The run was started: its result is recorded as soon as its container has ended.
    fn watch(
        &mut self,
        run: &CurrentRun,
        job: Option<&JobFacts>,
        uid: &str,
        wanted: Option<(&Valid, &[Due<'_>])>,
    ) -> Option<Standing> {
        let pods: Vec<_> = self.snapshot.run_pods.iter().filter(|pod| belongs(pod, uid)).collect();
        match progress(job, &pods) {
            Progress::Running => Some(running(run, "")),
            Progress::NotStarted(why) => {
                let why = self.why_not_started(run, &pods, why);
                let stuck = !why.is_empty() && self.is_overtaken(run, wanted);
                let Some(job) = job.filter(|job| !job.terminating && stuck) else {
                    return Some(running(run, &why));
                };
                self.effects.push(Effect::DeleteJob { name: job.name.clone(), uid: job.uid.clone() });
                let message = format!("given up before its container started: {why}");
                let ended = Ended { result: RunResult::NotStarted, message, started: None, finished: None };
                self.record(run, ended);
                None
            }
            Progress::Ended(ended) => {
                self.record(run, ended);
                None
            }
        }
    }

    /// A Job that is refused its Pod, by a quota say, tells it in events alone.
    fn why_not_started(&self, run: &CurrentRun, pods: &[&PodFacts], said: String) -> String {
        let waited = self.now.duration_since(run.started.0);
        if !said.is_empty() || !pods.is_empty() || waited.as_secs() < NO_POD_AFTER {
            return said;
        }
        let (job, namespace) = (&run.job, &self.snapshot.namespace);
        format!("it has no Pod yet; 'kubectl describe job {job} -n {namespace}' shows why")
    }

    /// Whether a run whose container can't start stands in the way of one that is due now. One that
    /// was given up before doesn't count, else two of them would take turns for ever.
    fn is_overtaken(&self, run: &CurrentRun, wanted: Option<(&Valid, &[Due<'_>])>) -> bool {
        wanted.is_some_and(|(valid, due)| {
            due.iter().any(|due| {
                let run_hash = job::run_hash(valid, due.source.workload.template);
                let changed = due.key != run.key || run_hash != run.run_hash;
                let history = &self.status.history;
                changed
                    && blocked(history, due.key, &run_hash).is_none()
                    && !given_up(history, due.key, &run_hash)
            })
        })
    }

    /// The result goes into the status; Pods of a done key are released by that alone.
    fn record(&mut self, run: &CurrentRun, ended: Ended) {
        let Ended { result, message, started, finished } = ended;
        let CurrentRun { key, image, job, attempt, run_hash, started: claimed, .. } = run.clone();
        let (warning, reason, note) = match result {
            RunResult::Succeeded => {
                self.status.done.insert(0, DoneKey::new(key.clone(), image.clone(), How::Succeeded));
                self.status.last_successful_migration = Some(image.clone());
                let took = took(started, finished);
                (false, Reason::UpToDate, format!("migrated {key} in Job {job}{took}"))
            }
            RunResult::NotStarted => (true, Reason::Pending, format!("migration of {key}: {message}")),
            // Told by the standing that it leads to.
            RunResult::Failed | RunResult::Unknown => (true, Reason::Failed, String::new()),
        };
        if !note.is_empty() {
            self.tell(warning, reason, note);
        }
        let started = started.map_or(claimed, MicroTime);
        let finished = MicroTime(finished.unwrap_or(self.now));
        let record =
            RunRecord { key, image, job, attempt, attempts: 1, run_hash, started, finished, result, message };
        self.status.history.insert(0, record);
        self.status.current = None;
    }

    /// Nothing starts while a Pod of any other run of this Migrator is unfinished, whosever it is,
    /// or a Job may be about to make one (contract §5).
    pub(super) fn earlier_run(&self, own_job: Option<&str>) -> Option<Standing> {
        let foreign_pod = |pod: &&PodFacts| pod.unfinished() && !own_job.is_some_and(|uid| belongs(pod, uid));
        let foreign_job =
            |job: &&JobFacts| job.outcome.is_none() && !job.suspended && Some(job.uid.as_str()) != own_job;
        let pod = self.snapshot.run_pods.iter().find(foreign_pod).map(|pod| format!("Pod {}", pod.name));
        let job = || self.snapshot.jobs.iter().find(foreign_job).map(|job| format!("Job {}", job.name));
        pod.or_else(job).map(|what| {
            Standing::reconciling(
                Reason::EarlierRunUnfinished,
                format!("{what} of an earlier run is not finished; nothing starts beside it"),
            )
        })
    }

    fn tell(&mut self, warning: bool, reason: Reason, note: String) {
        self.events.push(Event { warning, reason, note, workload: self.status.source.clone() });
    }
}

/// Whether a Pod was made by the Job of that uid.
pub(super) fn belongs(pod: &PodFacts, job_uid: &str) -> bool {
    pod.owner.as_ref().and_then(|owner| owner.uid.as_deref()) == Some(job_uid)
}

fn identity(run: &CurrentRun) -> RunIdentity {
    RunIdentity { key: run.key.clone(), attempt: run.attempt, run_hash: run.run_hash.clone() }
}

fn pending(run: &CurrentRun) -> Standing {
    Standing::reconciling(Reason::Pending, format!("migration of {} is about to start", run.key))
}

fn running(run: &CurrentRun, why_not_started: &str) -> Standing {
    let CurrentRun { key, job, .. } = run;
    let message = if why_not_started.is_empty() {
        format!("migrating {key} in Job {job}")
    } else {
        format!("migration of {key} has not started in Job {job}: {why_not_started}")
    };
    Standing::reconciling(Reason::Running, message)
}

fn took(started: Option<Timestamp>, finished: Option<Timestamp>) -> String {
    match (started, finished) {
        (Some(started), Some(finished)) => {
            format!(", which took {} s", finished.as_second().saturating_sub(started.as_second()))
        }
        _ => String::new(),
    }
}
