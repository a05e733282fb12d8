//! Logs: what is written, and how. Metrics are registered where they are counted, and served by
//! [`crate::probes`].

use std::error::Error;

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a program logs; flattened into its command line.
#[derive(Args, Clone, Debug)]
pub struct Telemetry {
    /// What to log: a level, or levels by target, such as `info,kube=debug`
    #[arg(long, env = "LOG", default_value = "info", value_name = "LEVELS")]
    log: Targets,

    /// How to log: one JSON object a line, or text for people
    #[arg(long, env = "LOG_FORMAT", default_value = "json", value_name = "FORMAT")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Text,
}

impl Telemetry {
    /// Starts logging to standard output, panics included. Fails where logging has been started
    /// before.
    pub fn start(self) -> Result<(), TryInitError> {
        let format = tracing_subscriber::fmt::layer();
        let lines = match self.log_format {
            Format::Json => format.json().flatten_event(true).boxed(),
            Format::Text => format.boxed(),
        };
        registry().with(lines.with_filter(self.log)).try_init()?;
        // A panic's own text would be the one line that log collectors cannot parse.
        std::panic::set_hook(Box::new(|panic| {
            tracing::error!(location = panic.location().map(tracing::field::display), "{}", text_of(panic));
        }));
        Ok(())
    }
}

/// An error and what caused it, in one line: most errors say their own part alone. Those that repeat their
/// cause say it once.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn text_of<'a>(panic: &'a std::panic::PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("panicked")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        telemetry: Telemetry,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, #[source] Option<Box<Told>>);

    #[rstest]
    #[case::alone(Told("no lease", None), "no lease")]
    #[case::with_its_causes(
        Told("no lease", Some(Box::new(Told("no answer", Some(Box::new(Told("refused", None))))))),
        "no lease: no answer: refused"
    )]
    #[case::repeated(
        Told("no lease", Some(Box::new(Told("sent: reset (Kind)", Some(Box::new(Told("reset", None))))))),
        "no lease: sent: reset (Kind)"
    )]
    fn an_error_is_told_with_all_that_caused_it(#[case] error: Told, #[case] expected: &str) {
        assert_eq!(causes(&error), expected);
    }

    #[test]
    fn levels_by_target_are_understood() {
        let program = Program::try_parse_from(["program", "--log", "warn,kube=debug"]).unwrap();
        assert!(program.telemetry.log.would_enable("kube::client", &tracing::Level::DEBUG));
        assert!(!program.telemetry.log.would_enable("other", &tracing::Level::INFO));
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_its_flag() {
        let error = Program::try_parse_from(["program", "--log", "kube=loud"]).unwrap_err();
        assert!(error.to_string().contains("--log"), "{error}");
    }
}
