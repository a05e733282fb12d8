//! From a spec as written to one that can be followed. After this nobody reads the raw spec.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use migrations_api::{MigratorSpec, Reason, RerunOn};
use serde::Serialize;
use serde_json::{Value, json};

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
    /// What makes a migration due.
    pub rerun_on: RerunOn,
    /// How many attempts may follow the first.
    pub backoff_limit: i32,
    /// Jobs of successful runs that are kept.
    pub successful_jobs: usize,
    /// Jobs of failed runs that are kept.
    pub failed_jobs: usize,
    /// No new migration starts.
    pub suspend: bool,
    /// The lock that a run holds.
    pub lock: Option<String>,
}

/// Attempts after the first, where the spec doesn't say (contract §2).
const BACKOFF_LIMIT: i32 = 6;

/// Jobs kept of successful and of failed runs, where the spec doesn't say (contract §2).
const JOBS_KEPT: (usize, usize) = (1, 2);

/// What of a spec goes into the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    /// Environment variables on top of the template's.
    pub env: Vec<Value>,
    /// Sources of environment variables after the template's.
    pub env_from: Vec<Value>,
    /// Resources in place of the template's.
    pub resources: Option<Value>,
    /// Service account in place of the template's.
    pub service_account_name: Option<String>,
    /// How long an attempt may run, in seconds.
    pub active_deadline_seconds: Option<i64>,
    /// Other containers of the template that the run keeps.
    pub keep_containers: Vec<String>,
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
        json!(self).to_string()
    }
}

/// Parses a spec, or says all that is wrong with it.
pub fn validate(spec: &MigratorSpec) -> Result<Valid, Refusal> {
    let MigratorSpec {
        selector,
        template_selector,
        command,
        args,
        image,
        container,
        labels,
        annotations,
        env,
        env_from,
        resources,
        service_account_name,
        backoff_limit,
        active_deadline_seconds,
        successful_jobs_history_limit,
        failed_jobs_history_limit,
        suspend,
        rerun_on,
        lock,
        keep_containers,
    } = spec;
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
                env: env.clone().unwrap_or_default(),
                env_from: env_from.clone().unwrap_or_default(),
                resources: resources.clone(),
                service_account_name: service_account_name.clone().filter(|name| !name.is_empty()),
                active_deadline_seconds: *active_deadline_seconds,
                keep_containers: keep_containers.clone().unwrap_or_default(),
            },
            rerun_on: rerun_on.unwrap_or_default(),
            backoff_limit: attempts_after_the_first(*backoff_limit),
            successful_jobs: kept(*successful_jobs_history_limit, JOBS_KEPT.0),
            failed_jobs: kept(*failed_jobs_history_limit, JOBS_KEPT.1),
            suspend: suspend.unwrap_or(false),
            lock: lock.clone().filter(|name| !name.is_empty()),
        }),
        _ => Err(Refusal { reason: Reason::InvalidSpec, message: wrong.join("; ") }),
    }
}

/// A limit as written. Negative ones don't get here from a current schema.
fn kept(limit: Option<i32>, default: usize) -> usize {
    limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(0))
}

/// How often a failed run is tried again, by what `spec.backoffLimit` says.
pub(crate) fn attempts_after_the_first(backoff_limit: Option<i32>) -> i32 {
    backoff_limit.unwrap_or(BACKOFF_LIMIT).max(0)
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
        let run = RunSpec {
            command: Some(vec!["python".to_owned()]),
            args: Some(vec!["manage.py".to_owned(), "migrate".to_owned()]),
            image: Some("shop:ddl".to_owned()),
            labels: [("team".to_owned(), "a".to_owned())].into(),
            annotations: [("note".to_owned(), "b".to_owned())].into(),
            ..RunSpec::default()
        };
        assert_eq!(valid.run, run);
        assert_ne!(run.fingerprint(), RunSpec::default().fingerprint());
    }
}
