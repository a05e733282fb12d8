//! From a spec as written to one that can be followed. After this nobody reads the raw spec.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use migrations_api::{MigratorSpec, Reason};
use serde_json::json;

use crate::selector::Selector;

/// A spec that can be followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    /// Which Pods wait.
    pub selector: Selector,
    /// Which of them a run may be cloned from; all of them where there is none.
    pub template_selector: Option<Selector>,
    /// The named key container, else the first.
    pub container: Option<String>,
    /// What changes in the run's container.
    pub run: RunSpec,
}

/// What of a spec goes into the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSpec {
    /// Entrypoint in place of the template's.
    pub command: Option<Vec<String>>,
    /// Arguments in place of the template's.
    pub args: Option<Vec<String>>,
    /// Image in place of the template's.
    pub image: Option<String>,
    /// Labels of Job and Pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Pod.
    pub annotations: BTreeMap<String, String>,
}

/// Why a spec can't be followed: becomes a condition that names the field and the fix. The object
/// waits for a change; nothing is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason of the condition.
    pub reason: Reason,
    /// The field and the fix.
    pub message: String,
}

impl RunSpec {
    /// A text that differs when the run does.
    pub fn fingerprint(&self) -> String {
        let Self { command, args, image, labels, annotations } = self;
        json!([command, args, image, labels, annotations]).to_string()
    }
}

/// Parses a spec, or says all that is wrong with it.
pub fn validate(spec: &MigratorSpec) -> Result<Valid, Refusal> {
    let MigratorSpec { selector, template_selector, command, args, image, container, labels, annotations } =
        spec;
    let mut wrong = Vec::new();
    let mut parse = |field: &str, selector| {
        Selector::parse(selector).map_err(|error| wrong.push(format!("spec.{field} {error}"))).ok()
    };
    let selector = parse("selector", selector);
    // The original took an empty one for all Pods, which harms nobody.
    let template_selector = template_selector
        .as_ref()
        .filter(|selector| **selector != LabelSelector::default())
        .map(|selector| parse("templateSelector", selector));
    match (selector, template_selector) {
        (Some(selector), template_selector) if wrong.is_empty() => Ok(Valid {
            selector,
            template_selector: template_selector.flatten(),
            container: container.clone().filter(|name| !name.is_empty()),
            run: RunSpec {
                command: command.clone(),
                args: args.clone(),
                image: image.clone().filter(|image| !image.is_empty()),
                labels: labels.clone().unwrap_or_default(),
                annotations: annotations.clone().unwrap_or_default(),
            },
        }),
        _ => Err(Refusal { reason: Reason::InvalidSpec, message: wrong.join("; ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn spec(value: Value) -> MigratorSpec {
        serde_json::from_value(value).unwrap()
    }

    #[rstest]
    #[case::empty_selector(json!({"selector": {}}), "spec.selector is empty")]
    #[case::broken_selector(
        json!({"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}}),
        "spec.selector matchExpressions[0].operator \"Is\" is unknown"
    )]
    #[case::broken_template_selector(
        json!({"selector": {"matchLabels": {"app": "web"}}, "templateSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}),
        "spec.templateSelector matchExpressions[0] (app In) has no values"
    )]
    fn a_refusal_names_the_field_and_the_fix(#[case] value: Value, #[case] said: &str) {
        let refusal = validate(&spec(value)).unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidSpec);
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }

    #[test]
    fn a_spec_of_the_original_is_followed_whole() {
        let valid = validate(&spec(json!({
            "selector": {"matchLabels": {"app": "web"}},
            "templateSelector": {"matchLabels": {"role": "leader"}},
            "command": ["python"], "args": ["manage.py", "migrate"], "image": "shop:ddl",
            "container": "app", "labels": {"team": "a"}, "annotations": {"note": "b"},
        })))
        .unwrap();
        assert!(valid.template_selector.is_some());
        assert_eq!(valid.container.as_deref(), Some("app"));
        assert_eq!(
            valid.run.fingerprint(),
            r#"[["python"],["manage.py","migrate"],"shop:ddl",{"team":"a"},{"note":"b"}]"#
        );
    }
}
