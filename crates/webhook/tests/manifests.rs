//! The shipped Deployment starts this program, on the ports that the Service leads to.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use clap::{CommandFactory, Parser};
use migrations_api::names::OPERATOR_NAMESPACE;
use migrations_testkit::manifests::{command_line, manifest, port, variable};
use migrations_webhook::config::Config;

const WEBHOOK: &str = "migrations-webhook";

/// As the Deployment starts it. That it takes the image from the variable is clap's part.
fn config() -> Config {
    let command = Config::command();
    let image = command.get_arguments().find(|argument| argument.get_id() == "waiter_image").unwrap();
    let image = variable(WEBHOOK, image.get_env().unwrap().to_str().unwrap());
    Config::try_parse_from(command_line(WEBHOOK).into_iter().chain([format!("--waiter-image={image}")]))
        .unwrap()
}

#[test]
fn the_deployments_command_line_and_ports_are_the_programs() {
    let config = config();
    assert_eq!(u64::from(config.admission_port), port(WEBHOOK, "admission"));
    assert_eq!(u64::from(config.question_port), port(WEBHOOK, "questions"));
    assert_eq!(u64::from(config.probes.probe_port), port(WEBHOOK, "probes"));
    assert_eq!(config.namespace, OPERATOR_NAMESPACE);
}

#[test]
fn the_kubelet_waits_for_longer_than_the_program_takes_to_end() {
    let config = config();
    let deployment = manifest("Deployment", WEBHOOK);
    let grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > config.shutdown_delay().as_secs() + migrations_protocol::HOLD_SECONDS);
}
