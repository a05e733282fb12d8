//! Where a Migrator stands while nothing is due (contract §6).

use migrations_api::{Reason, names};

use super::Draft;
use super::superseded::Fate;
use crate::snapshot::Gate;
use crate::status::Standing;
use crate::survey::{Member, Survey};
use crate::validate::Valid;
use crate::workload::Revision;

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
        let held_up = self.stranded(survey).or_else(|| self.untaken(survey));
        if let Some(standing) = held_up.or_else(|| self.unreplaced(survey)) {
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
        let (member, _) = self.waiting(survey, |member| member.current() && !member.leads)?;
        let Member { pod, origin, .. } = member;
        let message = format!(
            "Pod {} waits for {}, but no Pod matches spec.templateSelector, so there is nothing to clone a run \
             from; roll out a workload whose Pods it selects, or change it",
            pod.name, origin.key
        );
        Some(Standing::stalled(Reason::NoSource, message))
    }

    /// Pods that nothing will release: to take them for what their workload has become could start them on
    /// what was never migrated.
    fn stranded(&self, survey: &Survey<'_>) -> Option<Standing> {
        let (member, count) = self.waiting(survey, |member| member.origin.untold())?;
        let Member { pod, origin, .. } = member;
        let (kind, name) = (&origin.reference.kind, &origin.reference.name);
        let others = if count > 1 { format!(" and {} more wait", count - 1) } else { " waits".to_owned() };
        let message = format!(
            "Pod {}{others} in vain: {kind} {name} has another image than {} in its template, so either that has \
             changed since or another webhook rewrites the images of its Pods, and nothing tells which. Delete the \
             Pod in the first case; in the second, have that webhook leave it alone or make it a Pod of a \
             Deployment, whose revisions are told apart. Annotate it {}: \"true\" to have it start whatever is migrated",
            pod.name,
            origin.image,
            names::NO_WAIT_ANNOTATION
        );
        Some(Standing::stalled(Reason::PodsStranded, message))
    }

    /// A Pod whose workload hasn't said yet of which revision it is.
    fn untaken(&self, survey: &Survey<'_>) -> Option<Standing> {
        let (member, _) = self.waiting(survey, |member| member.origin.revision == Revision::Unknown)?;
        let Member { pod, origin, .. } = member;
        let message = format!(
            "Pod {} waits until {} {} tells in its status which revision is the newest",
            pod.name, origin.reference.kind, origin.reference.name
        );
        Some(Standing::reconciling(Reason::Pending, message))
    }

    /// A Pod of an older revision whose workload has yet to make the one that releases or replaces it.
    fn unreplaced(&self, survey: &Survey<'_>) -> Option<Standing> {
        let mut left_behind = self.left_behind(survey);
        left_behind.retain(|(_, fate)| *fate != Fate::Superseded);
        let (Member { pod, origin, .. }, fate) =
            left_behind.into_iter().min_by_key(|(member, _)| &member.pod.name)?;
        let (kind, name) = (&origin.reference.kind, &origin.reference.name);
        let message = match fate {
            Fate::Deleted => {
                format!(
                    "Pod {}, whose application never started, gives way to a new one of {kind} {name}",
                    pod.name
                )
            }
            _ => format!(
                "Pod {} waits for the migrations of {}, which start with the first Pod that {kind} {name} makes from \
                 its template as it stands; let its rollout go on where it is paused or staged",
                pod.name, origin.key
            ),
        };
        Some(Standing::reconciling(Reason::Pending, message))
    }

    /// The first by name of the held Pods that nothing has released and that `which` speaks of, and how
    /// many there are.
    fn waiting<'m, 's>(
        &self,
        survey: &'m Survey<'s>,
        which: impl Fn(&Member<'_>) -> bool,
    ) -> Option<(&'m Member<'s>, usize)> {
        let waits = |member: &&Member<'_>| {
            member.waits(&self.snapshot.name) && !member.released(&self.status.done) && which(member)
        };
        let members = || survey.members.iter().filter(waits);
        Some((members().min_by_key(|member| &member.pod.name)?, members().count()))
    }
}
