//! Where a Migrator stands while nothing is due (contract §6).

use migrations_api::{Reason, names};

use super::Draft;
use crate::snapshot::Gate;
use crate::status::Standing;
use crate::survey::{Member, Survey};
use crate::validate::Valid;

impl Draft<'_> {
    /// Nothing is due: why.
    pub(super) fn at_rest(&self, valid: &Valid, survey: &Survey<'_>) -> Standing {
        let snapshot = self.snapshot;
        if let (Some(pod), Some(container)) = (survey.lacking.first(), &valid.container) {
            let names: Vec<_> = pod.containers.iter().map(|it| it.name.as_str()).collect();
            return Standing::stalled(
                Reason::ContainerNotFound,
                format!(
                    "spec.container {container:?} is not in Pod {} (its containers: {}); name one of these \
                     or narrow spec.selector",
                    pod.name,
                    names.join(", ")
                ),
            );
        }
        if let Some(standing) = self.without_source(survey) {
            return standing;
        }
        if snapshot.run_requested() {
            return Standing::reconciling(
                Reason::Pending,
                format!(
                    "the run asked for by the annotation {} starts when there is a Pod to clone it from",
                    names::RUN_ANNOTATION
                ),
            );
        }
        match &snapshot.gate {
            Gate::Excluded => Standing::stalled(
                Reason::NamespaceExcluded,
                format!(
                    "admission leaves namespace {} alone, so no Pod is held there; move the Migrator",
                    snapshot.namespace
                ),
            ),
            Gate::Pending(why) => Standing::reconciling(Reason::GatePending, why.clone()),
            Gate::Unreachable(why) => Standing::reconciling(Reason::WebhookUnreachable, why.clone()),
            Gate::Refused(why) => Standing::stalled(
                Reason::EntryRefused,
                format!(
                    "no Pod is held, because the API server refuses the webhook entry; change spec.selector or \
                     spec.container, or the policy that refuses it. It says: {why}"
                ),
            ),
            Gate::InPlace if valid.suspend => Standing::ready(
                Reason::Suspended,
                "every image in use is migrated; no new migration starts while spec.suspend is true",
            ),
            Gate::InPlace if survey.members.is_empty() => {
                Standing::ready(Reason::Idle, "no Pod matches the selector")
            }
            Gate::InPlace => Standing::ready(Reason::UpToDate, "every image in use is migrated"),
        }
    }

    /// A Pod that waits for what nobody leads to.
    fn without_source(&self, survey: &Survey<'_>) -> Option<Standing> {
        let stranded =
            |member: &&Member<'_>| member.current() && !member.leads && !member.released(&self.status.done);
        let member = survey.members.iter().find(stranded)?;
        let Member { pod, origin, .. } = member;
        let message = if survey.members.iter().any(|member| member.current() && member.leads) {
            format!(
                "Pod {} follows what spec.templateSelector selects, which is migrated, but nothing names the \
                 Pod's revision (it was not made by a workload with revisions); annotate it {}: \"true\", or \
                 make spec.templateSelector select it",
                pod.name,
                names::NO_WAIT_ANNOTATION
            )
        } else {
            format!(
                "Pod {} waits for {}, but no Pod matches spec.templateSelector, so there is nothing to clone a \
                 run from; roll out a workload whose Pods it selects, or change it",
                pod.name, origin.key
            )
        };
        Some(Standing::stalled(Reason::NoSource, message))
    }
}
