//! What the controller counts for Prometheus: the few numbers that somebody on call needs. README.md
//! explains each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use kube::runtime::reflector::Store;
use migrations_api::conditions::READY;
use migrations_api::{Migrator, MigratorStatus, Reason, RunResult};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::watch::Guarded;

/// How runs end.
const RESULTS: [RunResult; 4] =
    [RunResult::Succeeded, RunResult::Failed, RunResult::Unknown, RunResult::NotStarted];

/// Counts. Clones count the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    runs: Family<[(&'static str, &'static str); 1], Counter>,
    look_failures: Counter,
    leadership: Leadership,
}

impl Default for Metrics {
    fn default() -> Self {
        let runs = Family::default();
        for result in RESULTS {
            // A series that begins at 1 has never increased.
            drop(runs.get_or_create(&label(result)));
        }
        Self { runs, look_failures: Counter::default(), leadership: Leadership::default() }
    }
}

impl Metrics {
    /// What is served.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register("migrations_runs", "Attempts at migrations that ended", self.runs.clone());
        registry.register(
            "migrations_look_failures",
            "Looks at a Migrator that failed and are repeated",
            self.look_failures.clone(),
        );
        registry.register_collector(Box::new(self.leadership.clone()));
        registry
    }

    /// Counts the runs of which `written` says how they ended, and what was read before it didn't.
    pub(crate) fn recorded(&self, read: &Migrator, written: &MigratorStatus) {
        let before = read.status.as_ref().map(|status| status.history.as_slice()).unwrap_or_default();
        let new = |job: &str| before.iter().all(|record| record.job != job);
        for record in written.history.iter().filter(|record| new(&record.job)) {
            self.runs.get_or_create(&label(record.result)).inc();
        }
    }

    /// Counts a look that failed.
    pub(crate) fn look_failed(&self) {
        self.look_failures.inc();
    }

    /// This replica leads, and follows `migrators`, until what is returned is dropped.
    pub(crate) fn leads(&self, migrators: Store<Guarded>) -> Leads {
        *self.leadership.lock() = Some(Known { migrators, certificate_expires: None });
        Leads(self.leadership.clone())
    }

    /// The serving certificate is good until then; `None` where there is none.
    pub(crate) fn certificate_expires(&self, at: Option<Timestamp>) {
        if let Some(known) = &mut *self.leadership.lock() {
            known.certificate_expires = at;
        }
    }
}

/// As in the status.
fn label(result: RunResult) -> [(&'static str, &'static str); 1] {
    let result = match result {
        RunResult::Succeeded => "Succeeded",
        RunResult::Failed => "Failed",
        RunResult::Unknown => "Unknown",
        RunResult::NotStarted => "NotStarted",
    };
    [("result", result)]
}

/// Held by the leader.
pub(crate) struct Leads(Leadership);

impl Drop for Leads {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// What the leader alone knows: another replica would tell of a past.
#[derive(Clone, Debug, Default)]
struct Leadership(Arc<Mutex<Option<Known>>>);

#[derive(Clone, Debug)]
struct Known {
    migrators: Store<Guarded>,
    certificate_expires: Option<Timestamp>,
}

impl Leadership {
    fn lock(&self) -> MutexGuard<'_, Option<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Leadership {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let known = self.lock().clone();
        let leads = encoder.encode_descriptor(
            "migrations_leader",
            "Whether this replica of the controller leads.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(known.is_some())).encode(leads)?;
        let Some(Known { migrators, certificate_expires }) = known else { return Ok(()) };

        let mut reasons = encoder.encode_descriptor(
            "migrations_migrators",
            "Migrators, by the reason of their condition Ready.",
            None,
            MetricType::Gauge,
        )?;
        for (reason, count) in by_reason(&migrators) {
            ConstGauge::new(count).encode(reasons.encode_family(&[("reason", reason)])?)?;
        }
        if let Some(at) = certificate_expires {
            let expires = encoder.encode_descriptor(
                "migrations_certificate_expiration_timestamp_seconds",
                "When the webhook's serving certificate expires, in seconds since 1970.",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(at.as_second()).encode(expires)?;
        }
        Ok(())
    }
}

fn by_reason(migrators: &Store<Guarded>) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    for reason in migrators.state().iter().filter_map(|guarded| reason(guarded)) {
        *counts.entry(reason.as_str()).or_default() += 1;
    }
    counts
}

/// `None` before the first look.
fn reason(guarded: &Guarded) -> Option<Reason> {
    let Ok(migrator) = &guarded.0 else { return Some(Reason::InvalidSpec) };
    let ready = migrator.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == READY)?;
    Reason::ALL.iter().copied().find(|reason| reason.as_str() == ready.reason)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use migrations_core::snapshot::Policy;
    use migrations_testkit::builders::migrator;
    use migrations_testkit::recording::RecordingServer;
    use prometheus_client::encoding::text::encode;
    use serde_json::{Value, json};

    use super::*;
    use crate::execute::{self, Executor};
    use crate::gate::Gates;
    use crate::gather::{Gatherer, OwnerReader};
    use crate::locks::Locks;
    use crate::reconcile::{Context, Error, after_fault};
    use crate::report::Report;
    use crate::watch::Queue;
    use crate::watch::jobs::JobWatch;
    use crate::watch::locks::LockWatch;
    use crate::watch::pods::PodWatches;
    use crate::watch::runs::RunWatch;

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).unwrap();
        text
    }

    fn store(all: &[Value]) -> Store<Guarded> {
        let (store, mut writer) = reflector::store::<Guarded>();
        let all = all.iter().map(|one| Event::InitApply(serde_json::from_value(one.clone()).unwrap()));
        for event in std::iter::once(Event::Init).chain(all).chain([Event::InitDone]) {
            writer.apply_watcher_event(&event);
        }
        store
    }

    fn shop(name: &str, reason: Option<&str>) -> Value {
        let mut shop = migrator(name).namespace("shop").selecting("app", name).json();
        if let Some(reason) = reason {
            let ready = json!({
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-06-01T00:00:00Z",
            });
            shop["status"] = json!({ "conditions": [ready] });
        }
        shop
    }

    const STANDING_BY: &str = "\
# HELP migrations_runs Attempts at migrations that ended.
# TYPE migrations_runs counter
migrations_runs_total{result=\"Failed\"} 0
migrations_runs_total{result=\"NotStarted\"} 0
migrations_runs_total{result=\"Succeeded\"} 0
migrations_runs_total{result=\"Unknown\"} 0
# HELP migrations_look_failures Looks at a Migrator that failed and are repeated.
# TYPE migrations_look_failures counter
migrations_look_failures_total 0
# HELP migrations_leader Whether this replica of the controller leads.
# TYPE migrations_leader gauge
migrations_leader 0
# EOF
";

    const LEADING: &str = "\
migrations_leader 1
# HELP migrations_migrators Migrators, by the reason of their condition Ready.
# TYPE migrations_migrators gauge
migrations_migrators{reason=\"InvalidSpec\"} 1
migrations_migrators{reason=\"MigrationFailed\"} 2
# HELP migrations_certificate_expiration_timestamp_seconds When the webhook's serving certificate expires, in seconds since 1970.
# TYPE migrations_certificate_expiration_timestamp_seconds gauge
migrations_certificate_expiration_timestamp_seconds 1800000000
# EOF
";

    /// Of a family each line is as it is; their order is by chance.
    fn in_order(text: &str) -> String {
        let mut lines: Vec<_> = text.lines().collect();
        let runs = lines.iter().position(|line| line.starts_with("migrations_runs")).unwrap();
        lines[runs..runs + RESULTS.len()].sort_unstable();
        lines.join("\n") + "\n"
    }

    #[test]
    fn only_a_leader_tells_of_migrators_and_of_the_certificate() {
        let metrics = Metrics::default();
        metrics.certificate_expires(Some(Timestamp::UNIX_EPOCH));
        assert_eq!(in_order(&text(&metrics)), STANDING_BY);

        let mut unreadable = shop("unreadable", None);
        unreadable["spec"] = json!("nonsense");
        let failed = Some("MigrationFailed");
        let all =
            [shop("a", failed), shop("b", failed), shop("new", None), shop("c", Some("Else")), unreadable];
        let leads = metrics.leads(store(&all));
        metrics.certificate_expires(Some("2027-01-15T08:00:00Z".parse().unwrap()));
        let leading = text(&metrics);
        assert!(leading.ends_with(LEADING), "{leading}");

        drop(leads);
        assert_eq!(in_order(&text(&metrics)), STANDING_BY);
    }

    #[test]
    fn a_run_is_counted_once_by_how_it_ended() {
        let record = |job: &str, result: &str| {
            json!({
                "key": "a", "image": "a", "job": job, "attempt": 1, "runHash": "h", "result": result,
                "started": "2026-06-01T00:00:00.000000Z", "finished": "2026-06-01T00:00:00.000000Z",
            })
        };
        let status = |history: &[Value]| -> MigratorStatus {
            serde_json::from_value(json!({ "history": history })).unwrap()
        };
        let metrics = Metrics::default();
        let mut shop = migrator("shop").build();
        let statuses = [
            status(&[record("1", "Failed")]),
            // The next attempt at the same takes the place of the one before.
            status(&[record("2", "Failed")]),
            status(&[record("3", "Succeeded"), record("2", "Failed")]),
            // One is forgotten.
            status(&[record("3", "Succeeded")]),
        ];
        for written in statuses {
            metrics.recorded(&shop, &written);
            shop.status = Some(written);
        }
        let text = text(&metrics);
        for (result, count) in [("Succeeded", 1), ("Failed", 2), ("Unknown", 0), ("NotStarted", 0)] {
            let line = format!("\nmigrations_runs_total{{result=\"{result}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[tokio::test]
    async fn a_look_that_failed_is_counted() {
        let (metrics, client) = (Metrics::default(), RecordingServer::new().client());
        let locks = Locks::new(client.clone(), "operator");
        let gatherer = Gatherer {
            client: client.clone(),
            pods: PodWatches::new(client.clone(), Queue::new().0, RunWatch::default()),
            jobs: JobWatch::default(),
            owners: OwnerReader::new(client.clone()),
            migrators: store(&[]),
            locks: locks.clone(),
            lock_watch: LockWatch::default(),
            policy: Policy::default(),
        };
        let context = Context {
            executor: Executor { client: client.clone(), locks, metrics: metrics.clone() },
            gatherer,
            gates: Gates::default(),
            report: Report::new(client),
            metrics: metrics.clone(),
            memory: Mutex::new(HashMap::new()),
        };
        let guarded: Guarded = serde_json::from_value(shop("a", None)).unwrap();
        let error = serde_json::from_str::<Value>("").unwrap_err();
        after_fault(guarded.into(), &Error::Execute(execute::Error::Encode(error)), context.into());
        assert!(text(&metrics).contains("\nmigrations_look_failures_total 1\n"));
    }

    #[test]
    fn the_readme_explains_each() {
        let readme = include_str!("../../../README.md");
        let metrics = Metrics::default();
        let _leads = metrics.leads(store(&[shop("a", Some("Failed"))]));
        metrics.certificate_expires(Some(Timestamp::UNIX_EPOCH));
        let text = text(&metrics);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(readme.contains(&format!("| `{name}`")), "{name}");
        }
    }
}
