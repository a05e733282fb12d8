//! Which of the due keys is run next (contract §3, §5).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use migrations_api::conditions::CLAIMS_EMPTIED;
use migrations_api::{CurrentRun, Reason, RunRecord, RunResult};

use super::Draft;
use super::run::Wanted;
use crate::due::{Attempt, Choice, Due, attempt, given_up};
use crate::job::{self, Rendered, RunIdentity};
use crate::plan::Effect;
use crate::snapshot::JobFacts;
use crate::status::{Extra, Standing};
use crate::survey::Survey;
use crate::validate::Refusal;

impl Draft<'_> {
    /// Claims the first due key whose turn it is.
    pub(super) fn claim(&mut self, wanted: Wanted<'_>, survey: &Survey<'_>) -> Standing {
        let Wanted { valid, due, request } = wanted;
        let status = self.status.clone();
        let history = &status.history;
        let mut choices: Vec<_> =
            due.iter().filter_map(|due| Some((due, due.choose(valid, &status, request)?))).collect();
        if valid.suspend {
            let keys: Vec<_> = due.iter().map(|due| due.key).collect();
            return Standing::stalled(
                Reason::Suspended,
                format!("migration of {} doesn't start while spec.suspend is true", keys.join(", ")),
            );
        }
        choices.sort_by_key(|(due, choice)| given_up(history, due.key, &choice.run_hash));
        let (mut stalled, mut pause) = (None, None);
        for (due, choice) in choices {
            match attempt(history, due.key, &choice.run_hash, request, valid.backoff_limit, self.now) {
                Attempt::Now { failures } => match self.claim_one(wanted, due, &choice, failures) {
                    Ok(standing) => {
                        self.take_up_request(survey);
                        return standing;
                    }
                    Err(Refused::Migrator(standing)) => return standing,
                    Err(Refused::Key(standing)) => drop(stalled.get_or_insert(standing)),
                },
                Attempt::Never(record) => drop(stalled.get_or_insert_with(|| failed(record))),
                Attempt::Later { at, record } => {
                    self.look_again_at(at);
                    pause.get_or_insert_with(|| {
                        let RunRecord { key, job, attempts, message, .. } = record;
                        let message = format!(
                            "migration of {key} failed (Job {job}, attempt {attempts} of {}), the next attempt starts \
                             at {at:.0}: {message}",
                            valid.backoff_limit.saturating_add(1)
                        );
                        Standing::reconciling(Reason::BackOff, message)
                    });
                }
            }
        }
        // One that needs someone is told before one that helps itself.
        stalled
            .or(pause)
            .unwrap_or_else(|| Standing::reconciling(Reason::Pending, "the Pods that lead are gone by now"))
    }

    fn claim_one(
        &mut self,
        Wanted { valid, request, .. }: Wanted<'_>,
        due: &Due<'_>,
        choice: &Choice<'_>,
        failures: i32,
    ) -> Result<Standing, Refused> {
        if let Some(standing) = self.earlier_run(None) {
            return Err(Refused::Migrator(standing));
        }
        let key = due.key.to_owned();
        let run_hash = choice.run_hash.clone();
        let run = RunIdentity { attempt: self.next_attempt(&key, &run_hash), key, run_hash };
        let template = choice.source.origin.template.unwrap_or(&serde_json::Value::Null);
        let Rendered { job, emptied_claims } = job::render(valid, self.snapshot, template, &run)
            .map_err(|Refusal { reason, message }| Refused::Key(Standing::stalled(reason, message)))?;
        let image = job::run_image(valid, template).unwrap_or_default();
        if let Some(standing) = self.without_lock(valid) {
            return Err(Refused::Migrator(standing));
        }
        let name = run.job_name(&self.snapshot.name, &self.snapshot.uid);
        let RunIdentity { key, attempt, run_hash } = run;
        let standing =
            Standing::reconciling(Reason::Pending, format!("migration of {key} is about to start"));
        self.status.current = Some(CurrentRun {
            key,
            image,
            job: name,
            job_uid: None,
            attempt,
            run_hash,
            request: request.map(str::to_owned),
            failures,
            started: MicroTime(self.now),
            given_up: None,
        });
        self.status.source = Some(choice.source.source());
        self.show_emptied_claims(&emptied_claims);
        self.effects.push(Effect::CreateJob(Box::new(job)));
        Ok(standing)
    }

    /// A run has an empty directory where Pods of a StatefulSet have a claim each: shown, since a
    /// migration may look for something there.
    fn show_emptied_claims(&mut self, claims: &[String]) {
        let extra = (!claims.is_empty()).then(|| Extra {
            reason: Reason::ClaimsEmptied,
            message: format!(
                "the run has empty directories in place of the StatefulSet's claims {}, which belong to its Pods",
                claims.join(", ")
            ),
        });
        self.extra.insert(CLAIMS_EMPTIED, extra);
    }

    /// With this claim a run that was asked for is under way: whatever is deployed is due once more.
    fn take_up_request(&mut self, survey: &Survey<'_>) {
        if self.snapshot.run_requested() {
            self.status.last_handled_run.clone_from(&self.snapshot.requests.run);
            self.rerun(survey, |_| true);
        }
    }

    /// One more than the newest attempt at the same that there is any trace of: a Job's name is used
    /// once.
    fn next_attempt(&self, key: &str, run_hash: &str) -> i32 {
        let same =
            |job: &&JobFacts| job.key.as_deref() == Some(key) && job.run_hash.as_deref() == Some(run_hash);
        let jobs =
            self.snapshot.jobs.iter().filter(same).filter_map(|job| job.attempt.as_ref()?.parse().ok());
        let records = self.status.history.iter().filter(|it| it.key == key && it.run_hash == run_hash);
        let newest = jobs.chain(records.map(|record| record.attempt)).max();
        newest.unwrap_or(0).saturating_add(1)
    }
}

/// Why a key isn't claimed.
enum Refused {
    /// Another one may be.
    Key(Standing),
    /// No other would be.
    Migrator(Standing),
}

/// The standing that a run which ended badly leaves behind.
fn failed(record: &RunRecord) -> Standing {
    let RunRecord { key, job, message, attempts, .. } = record;
    match record.result {
        RunResult::Unknown => Standing::stalled(
            Reason::ResultUnknown,
            format!(
                "migration of {key} (Job {job}) left no result: {message}. Look at the database, then annotate the \
                 Migrator {} with a new value to run it again, or {}: {key} if it is complete",
                migrations_api::names::RUN_ANNOTATION,
                migrations_api::names::DONE_ANNOTATION
            ),
        ),
        _ => Standing::stalled(
            Reason::MigrationFailed,
            format!(
                "migration of {key} failed (Job {job}, attempt {attempts}, the last): {message}\nRoll out a repaired \
                 image; or change the Migrator's spec or the workload's template, or annotate the Migrator {} with a \
                 new value, to run it again",
                migrations_api::names::RUN_ANNOTATION
            ),
        ),
    }
}
