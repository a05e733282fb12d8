//! The mark on a Pod whose waiters were released. Init containers run again whenever a Pod's sandbox
//! is lost, perhaps years later: a waiter that finds the mark ends without asking anyone, whatever
//! became of the operator and of its records (contract §8).

use migrations_api::names;
use migrations_protocol::RELEASED_ANNOTATION;
use serde_json::{Value, json};

use crate::snapshot::{ContainerState, PodFacts};

/// Whether a Pod is to be marked: all its waiters ended well, and nothing says so on it yet. One mark
/// is for all of them. A Pod on its way out doesn't need it any more.
pub fn needs_mark(pod: &PodFacts) -> bool {
    let is_waiter = |name: &str| name.starts_with(names::WAITER_PREFIX);
    let mut waiters = pod.init_containers.iter().filter(|container| is_waiter(&container.name));
    let ended_well = |state: &ContainerState| match state {
        ContainerState::Terminated(end) => end.exit_code == 0,
        ContainerState::Waiting(_) | ContainerState::Running(_) | ContainerState::Lost { .. } => false,
    };
    // The original's waiters are told nothing by a mark.
    !pod.released
        && pod.admitted.is_some()
        && pod.live()
        && waiters.all(|container| ended_well(&container.state))
}

/// The merge patch that marks the Pod of that uid, and no other of its name.
pub fn mark(uid: &str) -> Value {
    json!({ "metadata": { "uid": uid, "annotations": { RELEASED_ANNOTATION: uid } } })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use migrations_protocol::NO_WAIT_ANNOTATION;
    use migrations_testkit::builders::{Object, pod};
    use rstest::rstest;

    use super::*;

    /// A Pod that two Migrators hold, with an init container of its own behind their waiters.
    fn held() -> Object<Pod> {
        let waiter = |migrator: &str| {
            json!({ "args": [
                "--namespace=shop", format!("--migrator={migrator}"), "--container=app=shop:v1",
                "--server=webhook:9444", "--server-name=webhook", "--files=/",
            ] })
        };
        pod("web")
            .init_container_with("migrate-wait-blog", "waiter", waiter("blog"))
            .init_container_with("migrate-wait-shop", "waiter", waiter("shop"))
            .init_container("setup", "setup:v1")
            .container("app", "shop:v1")
    }

    /// The same, with how its init containers are.
    fn with_states(states: [Value; 3]) -> Object<Pod> {
        let names = ["migrate-wait-blog", "migrate-wait-shop", "setup"];
        let statuses: Vec<_> = names
            .iter()
            .zip(states)
            .map(|(name, state)| {
                json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state })
            })
            .collect();
        held().with(json!({ "status": { "phase": "Pending", "initContainerStatuses": statuses } }))
    }

    fn ended(code: i32) -> Value {
        json!({ "terminated": { "exitCode": code } })
    }

    fn runs() -> Value {
        json!({ "running": {} })
    }

    fn waits() -> Value {
        json!({ "waiting": { "reason": "PodInitializing" } })
    }

    #[rstest]
    #[case::it_runs(held().running(), true)]
    #[case::all_waiters_ended_and_its_own_init_container_runs(with_states([ended(0), ended(0), runs()]), true)]
    #[case::one_waiter_still_runs(with_states([ended(0), runs(), waits()]), false)]
    #[case::one_waiter_has_not_started(with_states([ended(0), waits(), waits()]), false)]
    #[case::one_waiter_gave_up(with_states([ended(0), ended(75), waits()]), false)]
    #[case::nothing_has_started(held(), false)]
    #[case::marked(held().running().annotation(RELEASED_ANNOTATION, "pod-web"), false)]
    #[case::the_mark_was_copied_from_another_pod(held().running().annotation(RELEASED_ANNOTATION, "pod-old"), true)]
    #[case::it_finished(held().finished(0, ""), false)]
    #[case::it_is_on_its_way_out(held().running().terminating_since("2026-01-01T00:01:00Z"), false)]
    #[case::nobody_holds_it(pod("web").init_container("setup", "setup:v1").container("app", "shop:v1").running(), false)]
    #[case::the_original_held_it(
        pod("web").init_container("migrate-wait-shop", "original:1").container("app", "shop:v1").running(), false
    )]
    fn a_pod_is_marked_once_all_its_waiters_were_released(#[case] pod: Object<Pod>, #[case] marked: bool) {
        assert_eq!(needs_mark(&PodFacts::from(&pod.build())), marked);
    }

    #[test]
    fn a_marked_pod_needs_no_mark() {
        let marked = held().running().with(mark("pod-web")).build();
        assert!(!needs_mark(&PodFacts::from(&marked)));
        assert_eq!(mark("pod-web")["metadata"]["uid"], "pod-web", "never another Pod of that name");
    }

    /// The waiter knows no Kubernetes, so the name is written in the protocol as well.
    #[test]
    fn both_crates_mean_the_same_annotation() {
        assert_eq!(NO_WAIT_ANNOTATION, names::NO_WAIT_ANNOTATION);
        assert!(RELEASED_ANNOTATION.starts_with(names::GROUP));
    }
}
