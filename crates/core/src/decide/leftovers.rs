//! What ended runs leave behind (contract §2, §5).

use migrations_api::names;

use super::Draft;
use crate::plan::Effect;
use crate::snapshot::{ContainerFacts, ContainerState, JobFacts, JobOutcome, PodFacts};
use crate::validate::Valid;

impl Draft<'_> {
    /// Ends what goes on in Pods whose migration has ended, a sidecar that another webhook added for
    /// example: it would hold up the next run. Deletes orphans of claims that were lost, and ended Jobs
    /// beyond those kept for their logs: the newest successes, of failures the first and the last. While
    /// the spec is refused no ended Job is deleted. A Pod whose containers have all ended is left to its
    /// kubelet, which may yet have to call it that: ended by us, a run that succeeded would look failed.
    pub(super) fn delete_leftovers(&mut self, valid: Option<&Valid>) {
        let ended = |pod: &&PodFacts| {
            let ended = |container: &ContainerFacts| matches!(container.state, ContainerState::Terminated(_));
            pod.live()
                && self.is_ours(pod)
                && pod.key_container(Some(names::RUN_CONTAINER)).is_some_and(ended)
                && !pod.containers.iter().all(ended)
        };
        let end = self.snapshot.run_pods.iter().filter(ended);
        let end: Vec<_> =
            end.map(|pod| Effect::EndPod { name: pod.name.clone(), uid: pod.uid.clone() }).collect();
        self.effects.extend(end);

        let current = self.status.current.as_ref().map(|run| run.job.as_str());
        let ours = |job: &&JobFacts| {
            job.owner_uid.as_deref() == Some(self.snapshot.uid.as_str())
                && Some(job.name.as_str()) != current
                && !job.terminating
        };
        let (mut succeeded, mut failed, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        for job in self.snapshot.jobs.iter().filter(ours) {
            let has_pod = self.snapshot.run_pods.iter().any(|pod| !pod.gone && pod.belongs_to(&job.uid));
            match &job.outcome {
                Some(JobOutcome::Complete) => succeeded.push(job),
                Some(JobOutcome::Failed(_)) => failed.push(job),
                None if job.suspended && !has_pod => delete.push(job),
                None => {}
            }
        }
        if let Some(Valid { successful_jobs, failed_jobs, .. }) = valid {
            succeeded.sort_by_key(|job| job.created);
            failed.sort_by_key(|job| job.created);
            succeeded.truncate(succeeded.len().saturating_sub(*successful_jobs));
            delete.extend(succeeded);
            let first = usize::from(*failed_jobs > 1);
            let last = failed_jobs.saturating_sub(first);
            let end = failed.len().saturating_sub(last);
            delete.extend(failed.into_iter().take(end).skip(first));
        }
        self.effects.extend(delete.into_iter().map(JobFacts::deletion));
    }

    /// Whether a Pod is of one of this Migrator's own Jobs; others under its label are nobody's to end.
    fn is_ours(&self, pod: &PodFacts) -> bool {
        self.snapshot.jobs.iter().any(|job| {
            job.owner_uid.as_deref() == Some(self.snapshot.uid.as_str()) && pod.belongs_to(&job.uid)
        })
    }
}
