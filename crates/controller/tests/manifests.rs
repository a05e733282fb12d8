//! The shipped Deployment starts this program.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use clap::{CommandFactory, Parser};
use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_controller::config::Config;
use migrations_testkit::manifests::{command_line, manifest, port};
use serde_json::json;

const CONTROLLER: &str = "migrations-controller";

#[test]
fn the_deployments_command_line_and_port_are_the_programs() {
    let identity = ["--pod-name=from-the-environment", "--pod-uid=from-the-environment"];
    let arguments = command_line(CONTROLLER).into_iter().chain(identity.map(str::to_owned));
    let config = Config::try_parse_from(arguments).unwrap();
    assert_eq!(u64::from(config.probes.probe_port), port(CONTROLLER, "probes"));
    assert_eq!(config.namespace, OPERATOR_NAMESPACE);
}

/// Two replicas with one identity would both lead.
#[test]
fn the_deployment_tells_each_replica_who_it_is() {
    let deployment = manifest("Deployment", CONTROLLER);
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let command = Config::command();
    for (argument, field) in [("namespace", "namespace"), ("pod_name", "name"), ("pod_uid", "uid")] {
        let argument = command.get_arguments().find(|it| it.get_id() == argument).unwrap();
        let source = json!({ "fieldRef": { "fieldPath": format!("metadata.{field}") } });
        let entry = json!({ "name": argument.get_env().unwrap().to_str(), "valueFrom": source });
        assert!(env.as_array().unwrap().contains(&entry), "{entry}");
    }
}
