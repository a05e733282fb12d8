//! Pods that can't carry a waiter, because it doesn't run where they do (contract §7).

use std::fmt;

use super::pod::{Pod, list};

/// What is done with a Pod that has to wait and can't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsupportedPods {
    /// It isn't created: what has to wait never starts unmigrated.
    #[default]
    Refuse,
    /// It starts without waiting.
    Admit,
}

/// Why a Pod can't carry a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Its nodes run Windows.
    Windows,
    /// Its nodes have another architecture.
    Architecture(String),
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Windows => f.write_str("it asks for nodes that run Windows"),
            Self::Architecture(name) => write!(f, "it asks for nodes of the architecture {name}"),
        }
    }
}

/// What the waiter's image is built for.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Annotation of the Pod that a kubelet creates to show a static Pod, which runs whatever becomes of it.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Whether the Pod only mirrors one that runs already.
pub(super) fn is_mirror(pod: Pod<'_>) -> bool {
    pod.annotation(MIRROR_ANNOTATION).is_some()
}

/// Why this Pod can't carry a waiter, if so.
pub(super) fn unsupported(pod: Pod<'_>) -> Option<Unsupported> {
    let systems = pod.spec().get("os").get("name").as_str().map(|name| vec![name]);
    let systems = systems.or_else(|| demanded(pod, ["kubernetes.io/os", "beta.kubernetes.io/os"]));
    if systems.is_some_and(|names| names.iter().all(|name| *name == "windows")) {
        return Some(Unsupported::Windows);
    }
    let names = demanded(pod, ["kubernetes.io/arch", "beta.kubernetes.io/arch"])?;
    (!names.iter().any(|name| ARCHITECTURES.contains(name)))
        .then(|| Unsupported::Architecture(names.join(" or ")))
}

/// The values of a node's label, of either name, that the Pod's nodes may have; nothing where it doesn't
/// say.
fn demanded<'a>(pod: Pod<'a>, labels: [&'static str; 2]) -> Option<Vec<&'a str>> {
    let selector = pod.spec().get("nodeSelector");
    if let Some(value) = labels.into_iter().find_map(|label| selector.get(label).as_str()) {
        return Some(vec![value]);
    }
    let affinity = pod.spec().get("affinity").get("nodeAffinity");
    let required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution");
    let mut all = Vec::new();
    // Each term is an alternative: one that doesn't speak of the label allows every value of it.
    for term in required.get("nodeSelectorTerms").as_array()? {
        let demand = list(term.get("matchExpressions")).iter().find(|one| {
            one.get("key").as_str().is_some_and(|key| labels.contains(&key))
                && one.get("operator").as_str() == Some("In")
        })?;
        all.extend(demand.get("values").as_array()?.iter().filter_map(|value| value.as_str()));
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn affinity(terms: &Value) -> Value {
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    fn term(key: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [
            {"key": "disk", "operator": "Exists"}, {"key": key, "operator": "In", "values": values},
        ]})
    }

    fn architecture(names: &str) -> Unsupported {
        Unsupported::Architecture(names.to_owned())
    }

    #[rstest]
    #[case::says_nothing(json!({}), None)]
    #[case::linux(json!({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/arch": "arm64"}}), None)]
    #[case::windows(json!({"os": {"name": "windows"}}), Some(Unsupported::Windows))]
    #[case::windows_nodes(json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), Some(Unsupported::Windows))]
    #[case::windows_nodes_by_affinity(
        affinity(&json!([term("kubernetes.io/os", &["windows"])])), Some(Unsupported::Windows))]
    #[case::windows_or_linux(affinity(&json!([term("kubernetes.io/os", &["windows", "linux"])])), None)]
    #[case::amd64(json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}), None)]
    #[case::s390x(json!({"nodeSelector": {"kubernetes.io/arch": "s390x"}}), Some(architecture("s390x")))]
    #[case::s390x_by_its_old_label(json!({"nodeSelector": {"beta.kubernetes.io/arch": "s390x"}}), Some(architecture("s390x")))]
    #[case::others_by_affinity(
        affinity(&json!([term("kubernetes.io/arch", &["s390x"]), term("kubernetes.io/arch", &["ppc64le"])])),
        Some(architecture("s390x or ppc64le")))]
    #[case::one_of_two_is_ours(affinity(&json!([term("kubernetes.io/arch", &["s390x", "amd64"])])), None)]
    #[case::one_alternative_is_open(
        affinity(&json!([term("kubernetes.io/arch", &["s390x"]), term("zone", &["a"])])), None)]
    #[case::affinity_without_terms(affinity(&json!([])), None)]
    fn a_waiter_runs_on_linux_on_two_architectures(
        #[case] spec: Value,
        #[case] expected: Option<Unsupported>,
    ) {
        assert_eq!(unsupported(Pod(&(&json!({ "spec": spec })).into())), expected);
    }
}
