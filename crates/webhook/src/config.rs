//! The command line: the only place that reads it and the environment.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use migrations_api::names;
use migrations_core::inject::{Resources, UnsupportedPods, quantity};
use migrations_process::probes::Probes;
use migrations_process::telemetry::Telemetry;

/// Injects waiters into new Pods and answers them.
#[derive(Clone, Debug, Parser)]
#[command(name = "migrations-webhook", version)]
pub struct Config {
    /// Namespace of the operator's own Secret and Service
    #[arg(long, env = "POD_NAMESPACE", default_value = names::OPERATOR_NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,

    /// Port of admission reviews, called by the API server over TLS
    #[arg(long, env = "ADMISSION_PORT", default_value_t = names::ADMISSION_LISTEN_PORT, value_name = "PORT")]
    pub admission_port: u16,

    /// Port of the waiters' questions, over TLS
    #[arg(long, env = "QUESTION_PORT", default_value_t = 9444, value_name = "PORT")]
    pub question_port: u16,

    /// Waiters that may hold a question at a time; each takes some 23 KiB of memory, further ones try again
    #[arg(long, env = "QUESTION_CONNECTIONS", default_value_t = 6000, value_name = "COUNT")]
    pub question_connections: usize,

    /// Image of the waiter that is injected into Pods
    #[arg(long, env = "WAITER_IMAGE", value_name = "IMAGE")]
    pub waiter_image: String,

    /// Processor time that a waiter requests, and its limit; nearer to what the Pod's own containers do where those have less, or all more
    #[arg(long, env = "WAITER_CPU", default_value = "100m", value_parser = quantity, value_name = "QUANTITY")]
    pub waiter_cpu: String,

    /// Memory that a waiter requests, and its limit; nearer to what the Pod's own containers do where those have less, or all more
    #[arg(long, env = "WAITER_MEMORY", default_value = "32Mi", value_parser = quantity, value_name = "QUANTITY")]
    pub waiter_memory: String,

    /// What to do with Pods that have to wait and can't carry a waiter: those for Windows, or for architectures other
    /// than amd64 and arm64
    #[arg(long, env = "UNSUPPORTED_PODS", default_value = "refuse", value_name = "WHAT")]
    pub unsupported_pods: Unsupported,

    /// Seconds that a waiter waits at most, counted anew whenever its kubelet starts it again; without end unless set
    #[arg(long, env = "WAITER_TIMEOUT", value_parser = clap::value_parser!(u64).range(1..), value_name = "SECONDS")]
    pub waiter_timeout: Option<u64>,

    /// Seconds to go on serving after SIGTERM, until no client is sent here any more
    #[arg(long, env = "SHUTDOWN_DELAY", default_value_t = 5, value_name = "SECONDS")]
    pub shutdown_delay: u64,

    /// Where probes and metrics are served
    #[command(flatten)]
    pub probes: Probes,

    /// How to log
    #[command(flatten)]
    pub telemetry: Telemetry,
}

/// What to do with Pods that can't carry a waiter.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Unsupported {
    /// Refuse them, and say why: nothing starts that has to wait
    Refuse,
    /// Let them start without waiting, and log it
    Admit,
}

impl From<Unsupported> for UnsupportedPods {
    fn from(chosen: Unsupported) -> Self {
        match chosen {
            Unsupported::Refuse => Self::Refuse,
            Unsupported::Admit => Self::Admit,
        }
    }
}

impl Config {
    /// What a waiter requests, and its limit.
    pub fn waiter_resources(&self) -> Resources {
        Resources { cpu: self.waiter_cpu.clone(), memory: self.waiter_memory.clone() }
    }

    /// How long to go on serving after SIGTERM.
    pub fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(self.shutdown_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_image_has_no_default() {
        let error = Config::try_parse_from(["migrations-webhook"]).unwrap_err().to_string();
        assert!(error.contains("--waiter-image"), "{error}");
    }

    #[test]
    fn a_wrong_quantity_is_refused_at_the_start() {
        let line = ["migrations-webhook", "--waiter-image=w:1", "--waiter-cpu=much"];
        let error = Config::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("\"much\" is no quantity"), "{error}");
    }
}
