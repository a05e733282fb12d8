//! A Deployment is called failed when it makes no progress for `progressDeadlineSeconds`, and a long
//! migration is no progress: that is told before it happens (contract §6).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use migrations_api::Reason;
use serde_json::Value;

use super::Draft;
use crate::plan::Event;
use crate::status::Standing;
use crate::survey::{Member, Survey};

/// How long before the deadline it is told; with short deadlines a fifth of them.
const AHEAD: Duration = Duration::from_mins(1);

/// What the API server fills in.
const DEFAULT_DEADLINE: u64 = 600;

/// How many revisions are remembered beyond those that have waiting Pods.
const REMEMBERED: usize = 10;

impl Draft<'_> {
    /// Tells of each Deployment with waiting Pods, once a revision, that it is about to be called failed:
    /// whether their migration runs, is tried again, or has yet to start.
    pub(super) fn mind_deadlines(&mut self, survey: &Survey<'_>, standing: &Standing) {
        if self.snapshot.requests.open {
            return;
        }
        let mut waiting: BTreeMap<&str, &Member<'_>> = BTreeMap::new();
        for member in &survey.members {
            let waits = member.waits(&self.snapshot.name) && !member.released(&self.status.done);
            if let Some(id) = member.origin.id.as_deref().filter(|_| waits && member.current()) {
                let first = waiting.entry(id).or_insert(member);
                // Whatever the order.
                if member.pod.name < first.pod.name {
                    *first = member;
                }
            }
        }
        let mut kept = 0;
        self.status.deadlines_told.retain(|id| {
            kept += 1;
            kept <= REMEMBERED || waiting.contains_key(id.as_str())
        });
        for (id, member) in waiting {
            let workload = member.origin.workload.as_ref();
            let Some(deployment) = workload.filter(|it| it.reference.kind == "Deployment") else { continue };
            let Some((warn, deadline)) = deadline(deployment.object) else { continue };
            if self.status.deadlines_told.iter().any(|told| told == id) {
                continue;
            }
            if self.now < warn {
                self.look_again_at(warn);
                continue;
            }
            self.status.deadlines_told.insert(0, id.to_owned());
            self.events.push(Event {
                warning: true,
                reason: Reason::ProgressDeadlineNear,
                note: format!(
                    "Pods of Deployment {} wait for the migrations of {} ({}), and at {deadline:.0} it reaches its \
                     spec.progressDeadlineSeconds: it will be called failed until they start, which harms nothing \
                     but tools that give up then; raise it to be longer than migrations take",
                    deployment.reference.name,
                    member.origin.key,
                    standing.reason.as_str()
                ),
                workload: Some(member.source()),
            });
        }
    }
}

/// When to tell, and the deadline itself. `None` where the Deployment has failed already, has made no
/// step yet, or is complete: one that was keeps that name while it replaces a Pod.
fn deadline(deployment: &Value) -> Option<(Timestamp, Timestamp)> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let progressing = conditions.iter().find(|it| it["type"] == "Progressing" && it["status"] == "True")?;
    if progressing.get("reason").and_then(Value::as_str) == Some("NewReplicaSetAvailable") {
        return None;
    }
    let since: Timestamp = progressing.get("lastUpdateTime")?.as_str()?.parse().ok()?;
    let seconds = deployment.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_u64);
    let allowed = Duration::from_secs(seconds.unwrap_or(DEFAULT_DEADLINE));
    let deadline = since.checked_add(allowed).ok()?;
    let warn = deadline.checked_sub(AHEAD.min(allowed / 5)).ok()?;
    Some((warn, deadline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::default_deadline(json!({}), Some("2026-01-01T00:09:00Z"))]
    #[case::short(json!({ "progressDeadlineSeconds": 100 }), Some("2026-01-01T00:01:20Z"))]
    #[case::never(json!({ "progressDeadlineSeconds": 2_147_483_647 }), Some("2094-01-19T03:13:07Z"))]
    fn it_is_told_a_while_before(#[case] spec: Value, #[case] expected: Option<&str>) {
        let progressing = |status: &str, reason: &str| {
            json!({
                "spec": spec,
                "status": { "conditions": [{
                    "type": "Progressing", "status": status, "reason": reason,
                    "lastUpdateTime": "2026-01-01T00:00:00Z",
                }]},
            })
        };
        let told = deadline(&progressing("True", "ReplicaSetUpdated")).map(|(warn, _)| warn.to_string());
        assert_eq!(told.as_deref(), expected);
        assert_eq!(deadline(&progressing("False", "ProgressDeadlineExceeded")), None);
        assert_eq!(deadline(&progressing("True", "NewReplicaSetAvailable")), None);
    }
}
