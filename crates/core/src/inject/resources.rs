//! What a waiter may use: little, and never more than the Pod's own containers may, so that a
//! waiter doesn't make a Pod break a limit range that its containers keep.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod::Pod;

/// What a waiter requests, and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Processor time, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory, as a Kubernetes quantity.
    pub memory: String,
}

/// A text that is no Kubernetes quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no quantity; write one such as 100m or 32Mi")]
pub struct QuantityError(String);

/// Reads a Kubernetes quantity; it stays as it is written.
pub fn quantity(text: &str) -> Result<String, QuantityError> {
    amount(text).map(|_| text.to_owned()).ok_or_else(|| QuantityError(text.to_owned()))
}

impl Resources {
    pub(super) fn within(&self, pod: Pod<'_>) -> ResourceRequirements {
        let amounts: BTreeMap<_, _> = [("cpu", &self.cpu), ("memory", &self.memory)]
            .map(|(resource, wanted)| {
                (resource.to_owned(), Quantity(capped(wanted, resource, pod).to_owned()))
            })
            .into();
        ResourceRequirements {
            limits: Some(amounts.clone()),
            requests: Some(amounts),
            ..ResourceRequirements::default()
        }
    }
}

/// `wanted`, or the largest limit of the Pod's containers, or the Pod's own: the smallest of them.
fn capped<'a>(wanted: &'a str, resource: &str, pod: Pod<'a>) -> &'a str {
    let of_containers = pod
        .containers()
        .iter()
        .filter_map(|container| container["resources"]["limits"][resource].as_str())
        .filter(|limit| amount(limit).is_some())
        .max_by(|a, b| amount(a).unwrap_or_default().total_cmp(&amount(b).unwrap_or_default()));
    [of_containers, pod.limit(resource)].into_iter().flatten().fold(wanted, |least, limit| {
        match (amount(least), amount(limit)) {
            (Some(a), Some(b)) if b > 0.0 && b < a => limit,
            _ => least,
        }
    })
}

/// A Kubernetes quantity as a number: exact enough to compare two of them.
pub(super) fn amount(quantity: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, unit) = SUFFIXES
        .iter()
        .find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, *unit)))
        .unwrap_or((quantity, 1.0));
    // Rust also reads words such as "inf" as numbers.
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '+') {
        return None;
    }
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    #[rstest]
    #[case::plain("2", Some(2.0))]
    #[case::milli("100m", Some(0.1))]
    #[case::binary("32Mi", Some(33_554_432.0))]
    #[case::decimal("32M", Some(32e6))]
    #[case::exponent("1e3", Some(1000.0))]
    #[case::exa("1E", Some(1e18))]
    #[case::word("inf", None)]
    #[case::nothing("", None)]
    fn quantities(#[case] quantity: &str, #[case] expected: Option<f64>) {
        assert_eq!(amount(quantity), expected);
    }

    #[rstest]
    #[case::no_limits(json!({"spec": {"containers": [{}]}}), "100m", "32Mi")]
    #[case::roomy(json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}]}}), "100m", "32Mi")]
    #[case::tight(json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "0.05", "memory": "16Mi"}}}]}}), "0.05", "16Mi")]
    #[case::largest_container_counts(
        json!({"spec": {"containers": [
            {"resources": {"limits": {"cpu": "10m"}}}, {"resources": {"limits": {"cpu": "50m"}}}
        ]}}), "50m", "32Mi")]
    #[case::pod_level(
        json!({"spec": {"resources": {"limits": {"memory": "20M"}}, "containers": [{}]}}), "100m", "20M")]
    #[case::nonsense(json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "a lot"}}}]}}), "100m", "32Mi")]
    fn a_waiter_stays_within_the_pods_own_limits(
        #[case] pod: Value,
        #[case] cpu: &str,
        #[case] memory: &str,
    ) {
        let settings = Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() };
        let given = settings.within(Pod(&pod));
        assert_eq!(given.requests, given.limits);
        let limits = given.limits.unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), (cpu, memory));
    }
}
