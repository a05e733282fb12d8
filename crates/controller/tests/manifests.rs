//! The shipped Deployment starts this program.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use clap::Parser;
use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_controller::config::Config;
use migrations_testkit::manifests::{command_line, port};

const CONTROLLER: &str = "migrations-controller";

#[test]
fn the_deployments_command_line_and_port_are_the_programs() {
    let config = Config::try_parse_from(command_line(CONTROLLER)).unwrap();
    assert_eq!(u64::from(config.probes.probe_port), port(CONTROLLER, "probes"));
    assert_eq!(config.namespace, OPERATOR_NAMESPACE);
}
