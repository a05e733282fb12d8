//! What a Pod was made from, as a text that stays the same whatever other webhooks do to its images
//! (contract §3). Admission writes it into the waiter, the controller ties it to a done key.

use std::collections::BTreeMap;

use crate::snapshot::OwnerRef;

/// Labels by which controllers tell the revisions of their templates apart.
const HASH_LABELS: [&str; 3] =
    ["controller-revision-hash", "pod-template-hash", "rollouts-pod-template-hash"];

/// The revision of a Pod with that controller and those labels: the controller's uid, with the hash of
/// its template. `None` where nothing tells the templates apart that one controller had over time: a
/// Pod without a controller, or one of a `ReplicationController`.
pub fn revision(controller: Option<&OwnerRef>, labels: &BTreeMap<String, String>) -> Option<String> {
    let controller = controller?;
    let uid = controller.uid.as_deref().filter(|uid| !uid.is_empty())?;
    if let Some(hash) = HASH_LABELS.iter().find_map(|label| labels.get(*label)) {
        return Some(format!("{uid}/{hash}"));
    }
    // The template of a Job never changes.
    (controller.kind == "Job" && controller.api_version.starts_with("batch/")).then(|| uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::replica_set("apps/v1", "ReplicaSet", Some(("pod-template-hash", "5f6")), Some("u1/5f6"))]
    #[case::stateful_set("apps/v1", "StatefulSet", Some(("controller-revision-hash", "web-7c")), Some("u1/web-7c"))]
    #[case::rollout("apps/v1", "ReplicaSet", Some(("rollouts-pod-template-hash", "9a")), Some("u1/9a"))]
    #[case::job("batch/v1", "Job", None, Some("u1"))]
    #[case::replication_controller("v1", "ReplicationController", None, None)]
    #[case::unknown_kind("example.com/v1", "Job", None, None)]
    fn a_revision_is_the_controller_and_the_hash_of_its_template(
        #[case] api_version: &str,
        #[case] kind: &str,
        #[case] label: Option<(&str, &str)>,
        #[case] expected: Option<&str>,
    ) {
        let controller = OwnerRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "web".to_owned(),
            uid: Some("u1".to_owned()),
        };
        let labels = label.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(revision(Some(&controller), &labels).as_deref(), expected);
        assert_eq!(revision(None, &labels), None);
    }
}
