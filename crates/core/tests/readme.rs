//! What the README shows is true.

#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use migrations_api::{Migrator, Reason};
use migrations_core::validate::validate;

const README: &str = include_str!("../../../README.md");
const SAMPLE: &str = include_str!("../../../manifests/samples/migrator.yaml");

#[test]
fn its_migrator_and_the_sample_can_be_followed() {
    let block = README.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    for text in [block, SAMPLE] {
        let migrator: Migrator = serde_yaml_ng::from_str(text).unwrap();
        validate(&migrator.spec).unwrap();
    }
}

#[test]
fn its_table_explains_every_reason() {
    for reason in Reason::ALL {
        assert!(README.contains(&format!("`{}`", reason.as_str())), "{}", reason.as_str());
    }
}

#[test]
fn its_table_explains_every_field_of_the_spec() {
    let spec = every_field();
    let fields = serde_json::to_value(spec).unwrap();
    for field in fields.as_object().unwrap().keys() {
        assert!(README.contains(&format!("`{field}`")), "{field}");
    }
}

/// A spec with every field set; a new field makes this fail to compile.
fn every_field() -> migrations_api::MigratorSpec {
    migrations_api::MigratorSpec {
        selector: serde_json::from_str("{}").unwrap(),
        template_selector: Some(serde_json::from_str("{}").unwrap()),
        command: Some(Vec::new()),
        args: Some(Vec::new()),
        image: Some(String::new()),
        container: Some(String::new()),
        labels: Some(std::collections::BTreeMap::new()),
        annotations: Some(std::collections::BTreeMap::new()),
        env: Some(Vec::new()),
        env_from: Some(Vec::new()),
        resources: Some(serde_json::from_str("{}").unwrap()),
        service_account_name: Some(String::new()),
        backoff_limit: Some(0),
        active_deadline_seconds: Some(0),
        successful_jobs_history_limit: Some(0),
        failed_jobs_history_limit: Some(0),
        suspend: Some(false),
        rerun_on: Some(migrations_api::RerunOn::Image),
        lock: Some(String::new()),
        keep_containers: Some(Vec::new()),
    }
}
