//! The sample application on the cluster: deployed, changed and asked through kubectl, as its user would.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::state::State;
use crate::environment::Environment;
use crate::progress::step;
use crate::{command, paths};

const NAMESPACE: &str = "shop";
/// The Migrator of `manifests/samples/django`.
pub(super) const MIGRATOR: &str = "shop";
/// The container in which Pods wait for it.
const WAITER: &str = "migrate-wait-shop";

/// The application.
#[derive(Clone, Copy)]
pub(super) struct Shop<'a> {
    environment: &'a Environment,
}

/// What the client has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    /// How many were sent and answered, or not.
    pub(super) sent: u64,
    /// How many of them failed.
    pub(super) failed: u64,
}

impl<'a> Shop<'a> {
    /// The application, deployed or not.
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment }
    }

    /// `kubectl` in its namespace.
    pub(super) fn kubectl(self, args: &[&str]) -> Command {
        let mut kubectl = self.environment.cluster().kubectl();
        kubectl.args(["--namespace", NAMESPACE]).args(args);
        kubectl
    }

    /// Applies the sample's manifests.
    pub(super) fn deploy(self) -> Result<()> {
        let mut apply = self.environment.cluster().kubectl();
        let sample = paths::workspace().join("manifests/samples/django");
        command::run(apply.args(["apply", "--kustomize"]).arg(sample))
    }

    /// Removes everything of it; nothing there is fine.
    pub(super) fn remove(self) -> Result<()> {
        let mut delete = self.environment.cluster().kubectl();
        delete.args(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"]);
        step("removing the shop", || command::run(&mut delete))
    }

    /// Gives every container of web and worker another image, as a deployment tool would.
    pub(super) fn set_image(self, image: &str) -> Result<()> {
        let set = format!("*={image}");
        command::run(&mut self.kubectl(&["set", "image", "deployment/web", "deployment/worker", &set]))
    }

    /// What there is to see of it now.
    pub(super) fn state(self) -> Result<State> {
        let mut get = self.kubectl(&["get", "migrators,deployments,pods", "--output", "json"]);
        let objects = command::output(get.args(["--request-timeout", "10s"]))?;
        let objects: Value = serde_json::from_str(&objects).context("kubectl printed no JSON")?;
        State::read(&objects)
    }

    /// The last lines that the waiter of a Pod printed.
    pub(super) fn waiter_log(self, pod: &str, lines: u32) -> Result<String> {
        command::output(&mut self.kubectl(&["logs", pod, "--container", WAITER, &format!("--tail={lines}")]))
    }

    /// What the Warning events of the Migrator say, newest last.
    pub(super) fn warnings(self) -> Result<Vec<String>> {
        let of = format!("type=Warning,involvedObject.kind=Migrator,involvedObject.name={MIGRATOR}");
        let mut get = self.kubectl(&["get", "events", "--field-selector", &of, "--output", "json"]);
        let events: Value =
            serde_json::from_str(&command::output(&mut get)?).context("kubectl printed no JSON")?;
        let text = |event: &Value| format!("{}: {}", text(&event["reason"]), text(&event["message"]));
        Ok(events["items"].as_array().into_iter().flatten().map(text).collect())
    }

    /// Starts sending requests to the web Pods.
    pub(super) fn start_client(self) -> Result<()> {
        let client = paths::workspace().join("e2e/app/client.yaml");
        command::run(self.kubectl(&["apply", "--filename"]).arg(client))?;
        command::run(&mut self.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]))
    }

    /// How many requests were sent so far, and how many failed.
    pub(super) fn requests(self) -> Result<Requests> {
        let log = command::output(&mut self.kubectl(&["logs", "client", "--tail=40"]))?;
        let mut counted = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let counts = |line: Value| Some((line["requests"].as_u64()?, line["failed"].as_u64()?));
        let (sent, failed) = counted.find_map(counts).unwrap_or_default();
        Ok(Requests { sent, failed })
    }

    /// How the first requests that failed did so.
    pub(super) fn failures(self) -> Result<String> {
        let log = command::output(&mut self.kubectl(&["logs", "client"]))?;
        let failures: Vec<_> = log.lines().filter(|line| line.contains("\"failure\"")).collect();
        Ok(failures.join("\n"))
    }

    /// What a web Pod answers now.
    pub(super) fn answer(self) -> Result<String> {
        let ask = "import urllib.request as r; print(r.urlopen('http://web/', timeout=5).read().decode())";
        command::output(&mut self.kubectl(&["exec", "client", "--", "python", "-c", ask]))
    }
}

/// A string, or nothing.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
