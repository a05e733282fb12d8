//! Which Pods of an older revision nobody would replace (contract §3).

use serde_json::Value;

use super::{Revision, Workload};
use crate::snapshot::PodFacts;

/// Whether the workload's controller leaves a Pod of an older revision alone for as long as it isn't
/// ready, so that a Pod which waits in vain would wait for ever: under `OnDelete`, and in a
/// `StatefulSet` that goes from one ready Pod to the next. A Pod that would only come back as it is,
/// below the partition of a staged template, is none of them.
pub fn left_alone(pod: &PodFacts, workload: &Workload<'_>) -> bool {
    if workload.revision != Revision::Older {
        return false;
    }
    let spec = |path: &str| workload.object.pointer(&format!("/spec/{path}"));
    let on_delete = spec("updateStrategy/type").and_then(Value::as_str) == Some("OnDelete");
    match workload.reference.kind.as_str() {
        "DaemonSet" => on_delete,
        "StatefulSet" if on_delete => true,
        "StatefulSet" => {
            let parallel = spec("podManagementPolicy").and_then(Value::as_str) == Some("Parallel");
            let number = |path: &str| spec(path).and_then(Value::as_i64).unwrap_or(0);
            let first_new = number("ordinals/start") + number("updateStrategy/rollingUpdate/partition");
            let ordinal = pod.name.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse::<i64>().ok());
            !parallel && ordinal.is_some_and(|ordinal| ordinal >= first_new)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{ContainerFacts, OwnerRef};
    use crate::workload::Known;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::ordered("StatefulSet", json!({}), "web-2", true)]
    #[case::parallel("StatefulSet", json!({ "podManagementPolicy": "Parallel" }), "web-2", false)]
    #[case::on_delete("StatefulSet", json!({ "podManagementPolicy": "Parallel", "updateStrategy": { "type": "OnDelete" } }), "web-2", true)]
    #[case::below_the_partition("StatefulSet", json!({ "updateStrategy": { "rollingUpdate": { "partition": 3 } } }), "web-2", false)]
    #[case::at_the_partition("StatefulSet", json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } }), "web-2", true)]
    #[case::counted_from_elsewhere("StatefulSet", json!({ "ordinals": { "start": 5 }, "updateStrategy": { "rollingUpdate": { "partition": 1 } } }), "web-5", false)]
    #[case::daemon_set("DaemonSet", json!({}), "agent-x7", false)]
    #[case::daemon_set_on_delete("DaemonSet", json!({ "updateStrategy": { "type": "OnDelete" } }), "agent-x7", true)]
    #[case::deployment("Deployment", json!({}), "web-7d-2", false)]
    fn a_pod_that_nobody_replaces(
        #[case] kind: &str,
        #[case] spec: Value,
        #[case] name: &str,
        #[case] expected: bool,
    ) {
        let object = json!({ "spec": spec });
        let reference = OwnerRef {
            api_version: "apps/v1".to_owned(),
            kind: kind.to_owned(),
            name: "web".to_owned(),
            uid: None,
        };
        let workload = |revision| Workload {
            reference: reference.clone(),
            object: &object,
            template: &object,
            image: "",
            own: None,
            known: Known::Kept,
            revision,
            long_running: true,
        };
        let pod = PodFacts {
            name: name.to_owned(),
            containers: Vec::<ContainerFacts>::new(),
            ..PodFacts::default()
        };
        assert_eq!(left_alone(&pod, &workload(Revision::Older)), expected);
        assert!(!left_alone(&pod, &workload(Revision::Current)));
    }
}
