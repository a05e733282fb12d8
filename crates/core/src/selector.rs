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
    /// What can't be a label's name.
    #[error(
        "names the label {key:?}, which no Pod can have; a name has letters, digits, '-', '_' and '.', at most 63, \
         after a domain and '/' if any"
    )]
    Key {
        /// The name.
        key: String,
    },
    /// What can't be a label's value.
    #[error(
        "asks for the value {value:?} of label {key}, which no Pod can have; a value has letters, digits, '-', '_' \
         and '.', at most 63"
    )]
    Value {
        /// Name of the label.
        key: String,
        /// The value.
        value: String,
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
        for requirement in &requirements {
            requirement.check()?;
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

    /// Labels of which an object must have each, with one of the values, to be selected.
    pub(crate) fn demands(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.requirements.iter().filter_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((key.as_str(), values)),
            Requirement::NotIn(..) | Requirement::Exists(_) | Requirement::Absent(_) => None,
        })
    }
}

impl Requirement {
    /// The API server refuses to list by labels that can't be.
    fn check(&self) -> Result<(), SelectorError> {
        let (key, values) = match self {
            Self::In(key, values) | Self::NotIn(key, values) => (key, Some(values)),
            Self::Exists(key) | Self::Absent(key) => (key, None),
        };
        let (domain, name) =
            key.rsplit_once('/').map_or((None, key.as_str()), |(domain, name)| (Some(domain), name));
        if !is_label_text(name) || !domain.is_none_or(is_domain) {
            return Err(SelectorError::Key { key: key.clone() });
        }
        match values.into_iter().flatten().find(|value| !value.is_empty() && !is_label_text(value)) {
            Some(value) => Err(SelectorError::Value { key: key.clone(), value: value.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether a text can be the name or, where it isn't empty, the value of a label.
fn is_label_text(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inside) && edge(text.chars().next()) && edge(text.chars().last())
}

/// Whether a text is a DNS subdomain, as may stand before a label's name.
fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
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
    #[case::empty_value(json!({"matchLabels": {"app": ""}}), false)]
    #[case::name_with_a_domain(json!({"matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "DoesNotExist"}]}), true)]
    #[case::all_must_hold(json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}), false)]
    fn matching(#[case] selector: Value, #[case] expected: bool) {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        assert_eq!(parse(selector).unwrap().matches(&labels), expected);
    }

    #[rstest]
    #[case::empty(json!({}), "name at least one label")]
    #[case::unknown_operator(json!({"matchExpressions": [{"key": "app", "operator": "Is"}]}), "use In, NotIn")]
    #[case::in_without_values(json!({"matchExpressions": [{"key": "app", "operator": "In"}]}), "add at least one")]
    #[case::no_value(json!({"matchLabels": {"app": "not a value"}}), "asks for the value \"not a value\" of label app")]
    #[case::no_name(json!({"matchLabels": {"-app": "web"}}), "names the label \"-app\"")]
    #[case::no_domain(json!({"matchExpressions": [{"key": "Bad_/app", "operator": "Exists"}]}), "names the label \"Bad_/app\"")]
    #[case::exists_with_values(json!({"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}), "remove them")]
    fn what_cannot_be_followed_is_told_the_fix(#[case] selector: Value, #[case] fix: &str) {
        let error = parse(selector).unwrap_err().to_string();
        assert!(error.contains(fix), "{error}");
    }
}
