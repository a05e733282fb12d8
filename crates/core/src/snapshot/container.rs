//! What decisions read of a container and of its status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus};

/// The kubelet's word for a container that ended, or was still to start, while it did not look; with an
/// exit code that it makes up.
const LOST_BY_KUBELET: &str = "ContainerStatusUnknown";

/// containerd's word for a container that ended while it did not look, with an exit code of its own.
const LOST_BY_RUNTIME: &str = "Unknown";

/// What decisions read of a container and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Its image, as in the Pod's spec.
    pub image: String,
    /// An init container that goes on beside the others, and is ended when they have.
    pub sidecar: bool,
    /// Where it is.
    pub state: ContainerState,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not started yet; the kubelet's reason and message where it gave any.
    Waiting(String),
    /// Running, since when.
    Running(Option<Timestamp>),
    /// Ended.
    Terminated(Termination),
    /// It will not run any more, and nobody saw how it ended.
    Lost {
        /// Whether it is known to have started.
        started: bool,
    },
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Its exit code; 0 is success.
    pub exit_code: i32,
    /// The kubelet's word for it, such as `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Its last output, where it left any.
    pub message: String,
}

impl ContainerFacts {
    pub(super) fn read(container: &Container, statuses: &[ContainerStatus]) -> Self {
        let status = statuses.iter().find(|status| status.name == container.name);
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            sidecar: container.restart_policy.as_deref() == Some("Always"),
            state: status.map_or_else(|| ContainerState::Waiting(String::new()), ContainerState::from),
        }
    }
}

impl ContainerState {
    /// Whether it is known to have started.
    pub fn has_started(&self) -> bool {
        !matches!(self, Self::Waiting(_) | Self::Lost { started: false })
    }
}

impl From<&ContainerStatus> for ContainerState {
    fn from(status: &ContainerStatus) -> Self {
        let (state, last) = (status.state.as_ref(), status.last_state.as_ref());
        if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            return Self::Running(running.started_at.as_ref().map(|time| time.0));
        }
        let ended_before = last.and_then(|state| state.terminated.as_ref());
        if let Some(end) = state.and_then(|state| state.terminated.as_ref()) {
            // A kubelet that ends a Pod calls also those lost that it never started: nothing else is
            // known of them.
            let started = end.reason.as_deref() == Some(LOST_BY_RUNTIME)
                || end.started_at.is_some()
                || end
                    .container_id
                    .as_ref()
                    .or(status.container_id.as_ref())
                    .is_some_and(|id| !id.is_empty())
                || status.restart_count > 0
                || ended_before.is_some();
            return if is_lost(end) { Self::Lost { started } } else { Self::Terminated(end.into()) };
        }
        // A container that was restarted has started, whatever it waits for now.
        if let Some(end) = ended_before {
            // One that was lost may be there again at any moment: that it ran is the last that is known.
            return if is_lost(end) { Self::Running(None) } else { Self::Terminated(end.into()) };
        }
        let waiting = state.and_then(|state| state.waiting.as_ref());
        let said = waiting.map(|waiting| {
            [waiting.reason.as_deref(), waiting.message.as_deref()].into_iter().flatten().collect::<Vec<_>>()
        });
        Self::Waiting(said.unwrap_or_default().join(": "))
    }
}

/// Whether its exit code is made up.
fn is_lost(end: &ContainerStateTerminated) -> bool {
    matches!(end.reason.as_deref(), Some(LOST_BY_KUBELET | LOST_BY_RUNTIME))
}

impl From<&ContainerStateTerminated> for Termination {
    fn from(end: &ContainerStateTerminated) -> Self {
        Self {
            exit_code: end.exit_code,
            reason: end.reason.clone().unwrap_or_default(),
            started: end.started_at.as_ref().map(|time| time.0),
            finished: end.finished_at.as_ref().map(|time| time.0),
            message: end.message.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn state(status: &Value) -> ContainerState {
        let mut whole =
            json!({ "name": "migrations", "image": "", "imageID": "", "ready": false, "restartCount": 0 });
        whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        ContainerState::from(&serde_json::from_value::<ContainerStatus>(whole).unwrap())
    }

    /// As a kubelet writes it of all containers that it can't find when it ends their Pod.
    fn unknown() -> Value {
        json!({ "terminated": {
            "reason": "ContainerStatusUnknown", "exitCode": 137, "startedAt": null, "finishedAt": null,
            "message": "The container could not be located when the pod was terminated",
        }})
    }

    #[rstest]
    #[case::never_started(json!({ "state": unknown(), "lastState": {} }), false)]
    #[case::never_started_and_no_id(json!({ "state": unknown(), "containerID": "" }), false)]
    #[case::it_had_been_running(json!({ "state": unknown(), "lastState": unknown() }), true)]
    #[case::it_was_counted_as_restarted(json!({ "state": unknown(), "restartCount": 1 }), true)]
    #[case::it_had_an_id(json!({ "state": unknown(), "containerID": "containerd://1" }), true)]
    #[case::node_restarted(json!({ "state": { "terminated": { "reason": "Unknown", "exitCode": 255 } } }), true)]
    fn an_exit_code_that_nobody_saw_is_none(#[case] status: Value, #[case] started: bool) {
        let state = state(&status);
        assert_eq!(state, ContainerState::Lost { started });
        assert_eq!(state.has_started(), started);
    }

    /// The kubelet may start it once more.
    #[test]
    fn one_that_was_lost_and_is_waited_for_has_not_ended() {
        let status =
            json!({ "state": { "waiting": { "reason": "ContainerCreating" } }, "lastState": unknown() });
        assert_eq!(state(&status), ContainerState::Running(None));
    }

    #[rstest]
    #[case::killed("Error", 137)]
    #[case::out_of_memory("OOMKilled", 137)]
    #[case::own_exit_code("Error", 255)]
    #[case::well("Completed", 0)]
    #[case::no_such_program("StartError", 128)]
    fn an_end_that_somebody_saw_keeps_its_exit_code_and_reason(#[case] reason: &str, #[case] exit_code: i32) {
        let end =
            json!({ "terminated": { "reason": reason, "exitCode": exit_code, "message": "last words" } });
        for status in [json!({ "state": end }), json!({ "state": { "waiting": {} }, "lastState": end })] {
            let ContainerState::Terminated(end) = state(&status) else { panic!("it ended") };
            assert_eq!((end.exit_code, end.reason.as_str()), (exit_code, reason));
            assert_eq!(end.message, "last words");
        }
    }
}
