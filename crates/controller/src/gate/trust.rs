//! Whether the waiters of a namespace know whom to trust. Asked once for all Migrators there: those that
//! share an entry must not fare differently, or it would be written as if some of them were gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Client;
use migrations_api::names::CA_BUNDLE_CONFIG_MAP;
use tokio::time::Instant;

use super::RETRY;
use crate::certificates::{CaBundle, Error, ensure_bundle};

/// How often it is put right, whether or not something changed: others may have changed it. The
/// longest pause after a fault as well.
const COMPARE: Duration = Duration::from_mins(1);

/// What has been told to the waiters of all namespaces with a Migrator.
#[derive(Default)]
pub(super) struct Trust {
    bundle: Option<CaBundle>,
    namespaces: BTreeMap<String, Told>,
}

/// What came of it in one namespace.
struct Told {
    /// Uids of the Migrators there. A new one may have come with a new namespace of that name, whose
    /// waiters were told nothing.
    uids: BTreeSet<String>,
    outcome: Result<(), String>,
    /// Failures in a row.
    failed: u32,
    again: Instant,
}

impl Trust {
    /// Sees to it that the waiters of these namespaces, each with the uids of its Migrators, trust
    /// `bundle`. Asks only where that is due.
    pub(super) async fn spread(
        &mut self,
        client: &Client,
        bundle: &CaBundle,
        namespaces: BTreeMap<String, BTreeSet<String>>,
    ) {
        // One moment for all: they are due together again.
        let now = Instant::now();
        if self.bundle.as_ref() != Some(bundle) {
            self.bundle = Some(bundle.clone());
            self.namespaces.values_mut().for_each(|told| told.again = now);
        }
        self.namespaces.retain(|namespace, _| namespaces.contains_key(namespace));
        for (namespace, uids) in namespaces {
            let before = self.namespaces.get(&namespace);
            if before.is_some_and(|told| now < told.again && uids.is_subset(&told.uids)) {
                continue;
            }
            let outcome = ensure_bundle(client, &namespace, bundle).await.map_err(|error| words(&error));
            if let Err(why) = &outcome
                && before.is_none_or(|told| told.outcome != outcome)
            {
                tracing::warn!(namespace, "the waiters of this namespace can't be told whom to trust: {why}");
            }
            let failed = match &outcome {
                Ok(()) => 0,
                Err(_) => before.map_or(0, |told| told.failed).saturating_add(1),
            };
            let told = Told { uids, outcome, failed, again: now + pause(failed) };
            self.namespaces.insert(namespace, told);
        }
    }

    /// Whether the waiters of a namespace know; else why not.
    pub(super) fn of(&self, namespace: &str) -> Result<(), String> {
        let told = self.namespaces.get(namespace).map(|told| told.outcome.clone());
        told.unwrap_or_else(|| Err(format!("the ConfigMap {CA_BUNDLE_CONFIG_MAP} is about to be written")))
    }

    /// When a namespace is due next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.namespaces.values().map(|told| told.again).min()
    }
}

/// When to look again, after that many failures in a row. What can't be written for long is a matter
/// of that namespace: a quota, a policy, its end.
fn pause(failed: u32) -> Duration {
    match failed.checked_sub(1) {
        None => COMPARE,
        Some(doublings) => RETRY.saturating_mul(1 << doublings.min(10)).min(COMPARE),
    }
}

/// For the Migrators' conditions: in the API server's own words.
fn words(error: &Error) -> String {
    let (done, source) = match error {
        Error::ReadBundle(_, source) => ("read", source),
        Error::Bundle(_, source) => ("written", source),
        other => return other.to_string(),
    };
    let said = match source {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    format!("the ConfigMap {CA_BUNDLE_CONFIG_MAP} can't be {done}: {said}")
}
