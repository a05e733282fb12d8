//! Label selectors, parsed once. An empty selector is refused here: taken at its word it would hold
//! every Pod of the namespace (contract §2).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector that can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One condition on one label. All of a selector's must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

/// Why a selector can't be followed, with the place in it and the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Neither labels nor expressions.
    #[error("is empty, which would hold every Pod of the namespace; name at least one label")]
    Empty,
    /// An operator that Kubernetes doesn't know.
    #[error(
        "matchExpressions[{index}].operator {operator:?} is unknown; use In, NotIn, Exists or DoesNotExist"
    )]
    UnknownOperator {
        /// Which expression.
        index: usize,
        /// What it says.
        operator: String,
    },
    /// `In` or `NotIn` with nothing to compare with.
    #[error("matchExpressions[{index}] ({key} {operator}) has no values; add at least one")]
    NoValues {
        /// Which expression.
        index: usize,
        /// Its label.
        key: String,
        /// Its operator.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("matchExpressions[{index}] ({key} {operator}) must not have values; remove them")]
    Values {
        /// Which expression.
        index: usize,
        /// Its label.
        key: String,
        /// Its operator.
        operator: String,
    },
}

impl Selector {
    /// Parses a selector by the rules of Kubernetes' own, save that an empty one is refused.
    pub fn parse(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<_> = labels
            .map(|(key, value)| Requirement::In(key.clone(), BTreeSet::from([value.clone()])))
            .collect();
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let values: BTreeSet<_> = expression.values.iter().flatten().cloned().collect();
            let (key, operator) = (expression.key.clone(), expression.operator.clone());
            requirements.push(match (operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::Absent(key),
                ("In" | "NotIn", true) => return Err(SelectorError::NoValues { index, key, operator }),
                ("Exists" | "DoesNotExist", false) => {
                    return Err(SelectorError::Values { index, key, operator });
                }
                _ => return Err(SelectorError::UnknownOperator { index, operator }),
            });
        }
        if requirements.is_empty() {
            return Err(SelectorError::Empty);
        }
        Ok(Self { requirements })
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            // As in Kubernetes: an object without the label isn't in the set.
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn parse(selector: Value) -> Result<Selector, SelectorError> {
        Selector::parse(&serde_json::from_value(selector).unwrap())
    }

    #[rstest]
    #[case::label_equal(json!({"matchLabels": {"app": "web"}}), true)]
    #[case::label_differs(json!({"matchLabels": {"app": "api"}}), false)]
    #[case::in_set(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}), true)]
    #[case::not_in_set(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false)]
    #[case::not_in_without_label(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}]}), true)]
    #[case::exists(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true)]
    #[case::absent(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false)]
    #[case::all_must_hold(json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}), false)]
    fn matching(#[case] selector: Value, #[case] expected: bool) {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        assert_eq!(parse(selector).unwrap().matches(&labels), expected);
    }

    #[rstest]
    #[case::empty(json!({}), "name at least one label")]
    #[case::unknown_operator(json!({"matchExpressions": [{"key": "app", "operator": "Is"}]}), "use In, NotIn")]
    #[case::in_without_values(json!({"matchExpressions": [{"key": "app", "operator": "In"}]}), "add at least one")]
    #[case::exists_with_values(json!({"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}), "remove them")]
    fn what_cannot_be_followed_is_told_the_fix(#[case] selector: Value, #[case] fix: &str) {
        let error = parse(selector).unwrap_err().to_string();
        assert!(error.contains(fix), "{error}");
    }
}
