//! What the keeper of the gate remembers between passes: nothing that a restart may not forget.

use std::collections::BTreeMap;

use migrations_core::entries::compare_after;
use tokio::time::Instant;

use super::configuration::Written;
use super::trust::Trust;
use crate::certificates::CaBundle;

/// What is remembered.
pub(super) struct Memory {
    /// What was put into each configuration.
    pub(super) kept: BTreeMap<String, Kept>,
    /// What is wrong with a configuration, so that it is said once.
    pub(super) faults: BTreeMap<String, String>,
    /// What waiters were told.
    pub(super) trust: Trust,
    /// What the API server trusted when it reached the webhook.
    pub(super) reached_by: Option<CaBundle>,
    /// Probes in a row that failed.
    pub(super) failed_probes: u32,
}

/// A configuration as it was put in order.
pub(super) struct Kept {
    /// Hash of what was desired. Held as it is, it would be most of the controller's memory.
    pub(super) desired: u64,
    /// Entries that the API server refused.
    pub(super) refused: BTreeMap<String, String>,
    /// How many times in a row it was found changed.
    pub(super) corrections: u32,
    /// When it is compared with what should be there, whether or not something changed.
    pub(super) compare_at: Instant,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            kept: BTreeMap::new(),
            faults: BTreeMap::new(),
            trust: Trust::default(),
            reached_by: None,
            failed_probes: 0,
        }
    }

    pub(super) fn is_in_order(&self, name: &str, desired: u64) -> bool {
        let kept = self.kept.get(name);
        kept.is_some_and(|kept| kept.desired == desired && Instant::now() < kept.compare_at)
    }

    /// Remembers a configuration that was put in order. One that had to be changed though nothing else
    /// was desired is being changed by someone else, who is not fought.
    pub(super) fn keep(&mut self, name: &str, desired: u64, written: Written) {
        let before = self.kept.get(name).filter(|kept| kept.desired == desired);
        let corrected = written.changed || !written.refused.is_empty();
        let corrections = match before {
            Some(kept) if corrected => kept.corrections.saturating_add(1),
            _ => 0,
        };
        let pause = compare_after(corrections);
        if written.changed && corrections > 0 {
            tracing::warn!(
                configuration = name,
                corrections,
                "something else changes the webhook entries; they are put right again, next time in {pause:?}; \
                 'kubectl get mutatingwebhookconfiguration {name} -o yaml --show-managed-fields' tells who it is"
            );
        }
        let kept =
            Kept { desired, refused: written.refused, corrections, compare_at: Instant::now() + pause };
        self.kept.insert(name.to_owned(), kept);
    }

    pub(super) fn tell_faults(&mut self, faults: &BTreeMap<String, String>) {
        for (configuration, why) in faults {
            if self.faults.get(configuration) != Some(why) {
                tracing::warn!(configuration, "the webhook entries are not in place: {why}");
            }
        }
        self.faults.clone_from(faults);
    }
}
