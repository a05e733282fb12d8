//! A Deployment is called failed when it makes no progress for `progressDeadlineSeconds`, and a long
//! migration is no progress: that is told before it happens (contract §6).

use std::time::Duration;

use jiff::Timestamp;
use migrations_api::{CurrentRun, Reason};
use serde_json::Value;

use super::Draft;
use crate::snapshot::OwnerRef;

/// How long before the deadline it is told; with short deadlines a fifth of them.
const AHEAD: Duration = Duration::from_mins(1);

/// What the API server fills in.
const DEFAULT_DEADLINE: u64 = 600;

impl Draft<'_> {
    /// Tells once a run that the Deployment which waits for it is about to be called failed.
    pub(super) fn mind_deadline(&mut self, run: &CurrentRun) {
        let Some(source) = self.status.source.clone().filter(|_| !run.deadline_told) else { return };
        let reference = OwnerRef {
            api_version: source.api_version.clone(),
            kind: source.kind.clone(),
            name: source.name.clone(),
            uid: source.uid.clone(),
        };
        let deployment = self.snapshot.owners.get(&reference).and_then(Option::as_ref);
        let Some((warn, deadline)) = deployment.and_then(deadline).filter(|_| source.kind == "Deployment")
        else {
            return;
        };
        if self.now < warn {
            self.look_again_at(warn);
            return;
        }
        if let Some(current) = &mut self.status.current {
            current.deadline_told = true;
        }
        self.tell(
            true,
            Reason::DeadlineNear,
            format!(
                "the migration of {} goes on, and at {deadline:.0} Deployment {} reaches its \
                 spec.progressDeadlineSeconds: it will be called failed until its Pods start, which harms nothing but \
                 tools that give up then; raise it to be longer than migrations take",
                run.key, source.name
            ),
        );
    }
}

/// When to tell, and the deadline itself. `None` where the Deployment has failed already or has made
/// no step yet.
fn deadline(deployment: &Value) -> Option<(Timestamp, Timestamp)> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let progressing = conditions.iter().find(|it| it["type"] == "Progressing" && it["status"] == "True")?;
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
        let progressing = |status: &str| {
            json!({
                "spec": spec,
                "status": { "conditions": [
                    { "type": "Progressing", "status": status, "lastUpdateTime": "2026-01-01T00:00:00Z" },
                ]},
            })
        };
        let told = deadline(&progressing("True")).map(|(warn, _)| warn.to_string());
        assert_eq!(told.as_deref(), expected);
        assert_eq!(deadline(&progressing("False")), None);
    }
}
