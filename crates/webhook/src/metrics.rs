//! What the webhook counts for Prometheus: the few numbers that somebody on call needs. README.md
//! explains each.

use std::time::Duration;

use migrations_protocol::Verdict;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::review::Outcome;
use crate::tokens::Reviewed;

/// What becomes of Pods at admission.
const OUTCOMES: [&str; 5] = ["Injected", "Untouched", "Refused", "NotYet", "Unreadable"];

/// What waiters are told.
const VERDICTS: [&str; 2] = ["Released", "Wait"];

/// What the API server says of tokens.
const REVIEWED: [&str; 3] = ["Accepted", "Refused", "Unreachable"];

/// Of the duration of an admission, in seconds. Most take less than the first.
const BUCKETS: [f64; 6] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0];

/// Counters by the one label that they have.
type Counters = Family<[(&'static str, &'static str); 1], Counter>;

/// Counts. Clones count the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    admissions: Counters,
    admission_duration: Histogram,
    questions_held: Gauge,
    questions_answered: Counters,
    token_reviews: Counters,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            admissions: counters("outcome", &OUTCOMES),
            admission_duration: Histogram::new(BUCKETS),
            questions_held: Gauge::default(),
            questions_answered: counters("verdict", &VERDICTS),
            token_reviews: counters("result", &REVIEWED),
        }
    }
}

/// All of them are there from the start: a series that begins at 1 has never increased.
fn counters(label: &'static str, values: &[&'static str]) -> Counters {
    let counters = Counters::default();
    for value in values {
        drop(counters.get_or_create(&[(label, value)]));
    }
    counters
}

impl Metrics {
    /// What is served.
    pub fn registry(&self) -> Registry {
        let Self { admissions, admission_duration, questions_held, questions_answered, token_reviews } =
            self.clone();
        let mut registry = Registry::default();
        registry.register("migrations_admissions", "Admission reviews that were answered", admissions);
        registry.register(
            "migrations_admission_duration_seconds",
            "How long the answer to an admission review took",
            admission_duration,
        );
        registry.register(
            "migrations_questions_held",
            "Waiters' questions without an answer yet",
            questions_held,
        );
        registry.register(
            "migrations_questions_answered",
            "Waiters' questions that were answered",
            questions_answered,
        );
        registry.register(
            "migrations_token_reviews",
            "Waiters' tokens that the API server was asked about",
            token_reviews,
        );
        registry
    }

    /// Counts a review that was answered after `took`; one that could not be read has no outcome.
    pub(crate) fn admitted(&self, outcome: Option<&Outcome>, took: Duration) {
        let outcome = match outcome {
            Some(Outcome::Patched(_)) => "Injected",
            Some(Outcome::Allowed) => "Untouched",
            Some(Outcome::Refused(_)) => "Refused",
            Some(Outcome::NotYet(_)) => "NotYet",
            None => "Unreadable",
        };
        self.admissions.get_or_create(&[("outcome", outcome)]).inc();
        self.admission_duration.observe(took.as_secs_f64());
    }

    /// A question is held until what is returned is dropped.
    pub(crate) fn holds(&self) -> Held {
        self.questions_held.inc();
        Held(self.questions_held.clone())
    }

    /// Counts an answer to a waiter.
    pub(crate) fn answered(&self, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Released => "Released",
            Verdict::Wait => "Wait",
        };
        self.questions_answered.get_or_create(&[("verdict", verdict)]).inc();
    }

    /// Counts a question to the API server about a token.
    pub(crate) fn token_reviewed(&self, reviewed: &Reviewed) {
        let result = match reviewed {
            Reviewed::Accepted { .. } => "Accepted",
            Reviewed::Refused(_) => "Refused",
            Reviewed::Unreachable => "Unreachable",
        };
        self.token_reviews.get_or_create(&[("result", result)]).inc();
    }
}

/// A question that waits for its answer.
pub(crate) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::tokens::{Caller, Refusal};

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).unwrap();
        text
    }

    /// Lines without their values.
    fn series(text: &str) -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    }

    fn count_everything(metrics: &Metrics) {
        let words = String::new;
        let outcomes = [
            Outcome::Allowed,
            Outcome::Patched(words()),
            Outcome::Refused(words()),
            Outcome::NotYet(words()),
        ];
        for outcome in outcomes.iter().map(Some).chain([None]) {
            metrics.admitted(outcome, Duration::from_millis(20));
        }
        for verdict in [Verdict::Released, Verdict::Wait] {
            metrics.answered(verdict);
        }
        let caller = Caller { namespace: words(), pod: words(), uid: words() };
        let accepted = Reviewed::Accepted { caller, expires: None };
        for reviewed in [accepted, Reviewed::Refused(Refusal::NoPod(Arc::from(""))), Reviewed::Unreachable] {
            metrics.token_reviewed(&reviewed);
        }
    }

    #[test]
    fn every_series_is_there_from_the_start_and_explained() {
        let metrics = Metrics::default();
        let first = text(&metrics);
        let help: Vec<_> = first.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        assert_eq!(
            help,
            [
                "migrations_admissions Admission reviews that were answered.",
                "migrations_admission_duration_seconds How long the answer to an admission review took.",
                "migrations_questions_held Waiters' questions without an answer yet.",
                "migrations_questions_answered Waiters' questions that were answered.",
                "migrations_token_reviews Waiters' tokens that the API server was asked about.",
            ]
        );
        count_everything(&metrics);
        let later = text(&metrics);
        assert_eq!(series(&first), series(&later));
        let counted = later.lines().filter(|line| line.contains("_total{")).collect::<Vec<_>>();
        assert_eq!(counted.len(), OUTCOMES.len() + VERDICTS.len() + REVIEWED.len());
        assert!(counted.iter().all(|line| line.ends_with(" 1")), "{later}");
        assert!(
            later.contains("\nmigrations_admission_duration_seconds_bucket{le=\"0.005\"} 0\n"),
            "{later}"
        );
        assert!(
            later.contains("\nmigrations_admission_duration_seconds_bucket{le=\"0.025\"} 5\n"),
            "{later}"
        );
    }

    #[test]
    fn a_question_is_held_until_it_is_dropped() {
        let metrics = Metrics::default();
        let held = metrics.holds();
        assert!(text(&metrics).contains("\nmigrations_questions_held 1\n"));
        drop(held);
        assert!(text(&metrics).contains("\nmigrations_questions_held 0\n"));
    }

    #[test]
    fn the_readme_explains_each() {
        let readme = include_str!("../../../README.md");
        for series in series(&text(&Metrics::default())) {
            let name = series.split('{').next().unwrap();
            let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
            let name = histogram.unwrap_or(name);
            assert!(readme.contains(&format!("| `{name}`")), "{name}");
        }
    }
}
