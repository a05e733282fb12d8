//! What a waiter may use: little, and never what the Pod's own containers may not, so that a waiter
//! neither makes a Pod break a limit range that its containers keep, nor changes its `QoS` class.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use migrations_api::names;
use serde_json_borrow::Value;

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
    /// The waiter's share of a Pod: requests that equal limits. A Pod whose containers ask for nothing
    /// stays of the class `BestEffort`, so its waiter asks for nothing either.
    pub(super) fn within(&self, pod: Pod<'_>) -> ResourceRequirements {
        if is_best_effort(pod) {
            return ResourceRequirements::default();
        }
        let amounts: BTreeMap<_, _> = [("cpu", &self.cpu), ("memory", &self.memory)]
            .map(|(resource, wanted)| {
                (resource.to_owned(), Quantity(fitting(wanted, resource, pod).to_owned()))
            })
            .into();
        ResourceRequirements {
            limits: Some(amounts.clone()),
            requests: Some(amounts),
            ..ResourceRequirements::default()
        }
    }
}

/// Whether nobody but waiters asks for processor time or memory.
fn is_best_effort(pod: Pod<'_>) -> bool {
    let own = pod.init_containers().iter().filter(|container| {
        !container.get("name").as_str().is_some_and(|name| name.starts_with(names::WAITER_PREFIX))
    });
    let asks = |whole| {
        ["cpu", "memory"]
            .into_iter()
            .any(|resource| request(whole, resource).or_else(|| limit(whole, resource)).is_some())
    };
    !pod.containers().iter().chain(own).chain([pod.spec()]).any(asks)
}

/// `wanted`, or as near to it as what the Pod's own containers ask for shows to be allowed: a limit
/// range lets pass what lies between the smallest of their requests and the largest of their limits.
/// A waiter that asks for as much as one of the containers costs nothing: it has ended before they
/// start. All containers together, waiters too, may ask for what the Pod as a whole does.
fn fitting<'a>(wanted: &'a str, resource: &'static str, pod: Pod<'a>) -> &'a str {
    let requests: Option<Vec<_>> =
        pod.containers().iter().map(|one| request(one, resource).or(limit(one, resource))).collect();
    let floor = requests.and_then(|all| all.into_iter().min_by(|a, b| value(a).total_cmp(&value(b))));
    let largest = pod.containers().iter().filter_map(|one| limit(one, resource));
    let largest = largest.max_by(|a, b| value(a).total_cmp(&value(b)));
    let ceilings = [largest, limit(pod.spec(), resource), request(pod.spec(), resource)];

    let raised = floor.filter(|floor| value(floor) > value(wanted)).unwrap_or(wanted);
    ceilings.into_iter().flatten().fold(
        raised,
        |least, ceiling| {
            if value(ceiling) < value(least) { ceiling } else { least }
        },
    )
}

/// What is set, where it is a quantity; 0 means nothing.
fn limit<'a>(of: &'a Value<'a>, resource: &'static str) -> Option<&'a str> {
    of.get("resources").get("limits").get(resource).as_str().filter(|text| value(text) > 0.0)
}

fn request<'a>(of: &'a Value<'a>, resource: &'static str) -> Option<&'a str> {
    of.get("resources").get("requests").get(resource).as_str().filter(|text| value(text) > 0.0)
}

fn value(quantity: &str) -> f64 {
    amount(quantity).unwrap_or_default()
}

/// A Kubernetes quantity as a number: exact enough to compare two of them.
fn amount(quantity: &str) -> Option<f64> {
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

    /// Each container's requests and limits, `null` where they are left open.
    fn pod(containers: &[(Value, Value)]) -> Value {
        let containers: Vec<_> = containers
            .iter()
            .map(|(requests, limits)| json!({"resources": {"requests": requests, "limits": limits}}))
            .collect();
        json!({"spec": {"containers": containers}})
    }

    fn limited(limits: &[Value]) -> Value {
        pod(&limits.iter().map(|limits| (Value::Null, limits.clone())).collect::<Vec<_>>())
    }

    fn whole(requests: &Value, limits: &Value) -> Value {
        json!({"spec": {"resources": {"requests": requests, "limits": limits}, "containers": [{}]}})
    }

    fn asked(pod: &Value) -> ResourceRequirements {
        Resources { cpu: "100m".to_owned(), memory: "32Mi".to_owned() }.within(Pod(&pod.into()))
    }

    #[rstest]
    #[case::no_limits(pod(&[(json!({"cpu": "10m"}), json!({}))]), "100m", "32Mi")]
    #[case::roomy(pod(&[(json!({"cpu": "50m", "memory": "16Mi"}), json!({"cpu": "2", "memory": "1Gi"}))]), "100m", "32Mi")]
    #[case::tight(limited(&[json!({"cpu": "0.05", "memory": "16Mi"})]), "0.05", "16Mi")]
    #[case::largest_limit_counts(limited(&[json!({"cpu": "10m"}), json!({"cpu": "50m"})]), "50m", "32Mi")]
    #[case::smallest_request_counts(
        pod(&[(json!({"cpu": "1", "memory": "2Gi"}), json!({})), (json!({"cpu": "200m", "memory": "1Gi"}), json!({}))]), "200m", "1Gi")]
    #[case::one_container_asks_for_nothing(
        pod(&[(json!({"cpu": "1"}), json!({"cpu": "2"})), (json!({}), json!({}))]), "100m", "32Mi")]
    #[case::limit_of_the_pod(whole(&json!({}), &json!({"memory": "20M"})), "100m", "20M")]
    #[case::request_of_the_pod(whole(&json!({"cpu": "50m"}), &json!({"cpu": "1"})), "50m", "32Mi")]
    #[case::zero_is_no_limit(limited(&[json!({"cpu": "0", "memory": "16Mi"})]), "100m", "16Mi")]
    #[case::nonsense(limited(&[json!({"cpu": "a lot", "memory": "1Gi"})]), "100m", "1Gi")]
    fn a_waiter_asks_for_what_the_pods_own_containers_show_to_be_allowed(
        #[case] pod: Value,
        #[case] cpu: &str,
        #[case] memory: &str,
    ) {
        let given = asked(&pod);
        assert_eq!(given.requests, given.limits);
        let limits = given.limits.unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), (cpu, memory));
    }

    #[rstest]
    #[case::nothing_said(json!({"spec": {"containers": [{}]}}))]
    #[case::zeros(limited(&[json!({"cpu": "0", "memory": "0"})]))]
    #[case::other_resources(limited(&[json!({"ephemeral-storage": "1Gi"})]))]
    #[case::a_waiter_that_is_there(json!({"spec": {"containers": [{}], "initContainers": [
        {"name": "migrate-wait-shop", "resources": {"limits": {"cpu": "100m"}}}]}}))]
    fn the_waiter_of_a_best_effort_pod_asks_for_nothing(#[case] pod: Value) {
        assert_eq!(asked(&pod), ResourceRequirements::default());
    }
}
