//! Keeps the gate in place (contract §7): the certificates that waiters trust in each namespace with
//! a Migrator, and the webhook entries in the configurations that the manifests ship.

mod configuration;
mod probe;
mod states;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::entries::{Endpoint, Entry, Gated, compare_after, configurations, is_excluded};
use migrations_core::snapshot::{Gate, Requests};
use migrations_core::validate::validate;
use migrations_process::probes::Part;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::certificates::{self, CaBundle};
use crate::watch::{Guarded, Queue};
use configuration::{Configurations, Desired, Written};
pub use states::Gates;
use states::{States, state};

/// How often the certificates that waiters trust are put right, whether or not something changed:
/// others may have changed them.
const COMPARE: Duration = Duration::from_mins(1);

/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(2);

/// Writes bundles and entries.
pub struct GateKeeper {
    /// For both.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// All Migrators.
    pub migrators: Store<Guarded>,
    /// What waiters and the API server trust.
    pub bundle: watch::Receiver<Option<CaBundle>>,
    /// Where states are told.
    pub gates: Gates,
    /// Who looks at a Migrator when its state changes.
    pub queue: Queue,
    /// True once every entry has been in place.
    pub in_place: Part,
}

/// What is remembered between passes: nothing that a restart may not forget.
struct Memory {
    /// What was put into each configuration.
    kept: BTreeMap<String, Kept>,
    /// What is wrong with a configuration, so that it is said once.
    faults: BTreeMap<String, String>,
    /// Uids of Migrators whose namespace has the bundle. By Migrator, not by namespace: one that was
    /// made anew has lost it.
    bundled: HashSet<String>,
    /// When all of them are looked at again.
    bundled_until: Instant,
    /// What the API server trusted when it reached the webhook.
    reached_by: Option<CaBundle>,
    /// Probes in a row that failed.
    failed_probes: u32,
}

/// A configuration as it was put in order.
struct Kept {
    /// Hash of what was desired. Held as it is, it would be most of the controller's memory.
    desired: u64,
    /// Entries that the API server refused.
    refused: BTreeMap<String, String>,
    /// How many times in a row it was found changed.
    corrections: u32,
    /// When it is compared with what should be there, whether or not something changed.
    compare_at: Instant,
}

/// The Migrators that a pass works for.
#[derive(Default)]
struct Round {
    /// Those with an entry.
    gated: Vec<Arc<Guarded>>,
    /// States that are known before entries are written.
    states: States,
    /// Uids of those that can't be read, or whose waiters can't be told whom to trust: their Pods stay as
    /// they are, held if they were.
    staying: BTreeSet<String>,
    /// All has worked so far.
    well: bool,
}

impl GateKeeper {
    /// Keeps the gate in place for as long as it is polled.
    pub async fn run(mut self) {
        // Before the first list there seems to be no Migrator: every entry in place would be taken
        // away, and with it the gate of Pods that come meanwhile.
        if self.migrators.wait_until_ready().await.is_err() {
            return;
        }
        let mut memory = Memory {
            kept: BTreeMap::new(),
            faults: BTreeMap::new(),
            bundled: HashSet::new(),
            bundled_until: Instant::now() + COMPARE,
            reached_by: None,
            failed_probes: 0,
        };
        loop {
            let bundle = match self.bundle.wait_for(Option::is_some).await {
                Ok(bundle) => bundle.clone(),
                Err(_) => return,
            };
            let again = match bundle {
                Some(bundle) => self.pass(&bundle, &mut memory).await,
                None => Instant::now() + RETRY,
            };
            tokio::select! {
                () = self.gates.asked() => {}
                changed = self.bundle.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    memory.bundled.clear();
                }
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    /// Writes whatever is not as it should be; returns when to look again.
    async fn pass(&mut self, bundle: &CaBundle, memory: &mut Memory) -> Instant {
        if memory.bundled_until <= Instant::now() {
            memory.bundled.clear();
            memory.bundled_until = Instant::now() + COMPARE;
        }
        let migrators = self.migrators.state();
        let mut round = self.gather(&migrators, bundle, memory).await;
        let all = self.desired(&round, bundle);
        let configurations = Configurations::new(self.client.clone());

        let unproven = self.prove(bundle, &all, &configurations, memory).await.err();
        let mut faults = BTreeMap::new();
        let done = put_all(&all, unproven.is_none(), &round, &configurations, memory, &mut faults).await;
        memory.tell_faults(&faults);
        let well = round.well && unproven.is_none() && done;

        let gates = gates_by_uid(&all, unproven.as_ref(), &faults, memory);
        for migrator in round.gated.iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
            let uid = migrator.metadata.uid.as_deref().unwrap_or_default();
            // One that is open has no entry.
            let gate = gates.get(uid).cloned().unwrap_or(Gate::InPlace);
            round.states.extend([state(migrator, gate)]);
        }
        self.tell(&migrators, round.states);
        if well {
            self.in_place.set(true);
        }
        let now = Instant::now();
        let compare = memory.kept.values().map(|kept| kept.compare_at).min();
        let next = compare.map_or(memory.bundled_until, |compare| compare.min(memory.bundled_until));
        match unproven {
            _ if well => next,
            Some(_) => now + probe::pause(memory.failed_probes),
            None => next.min(now + RETRY),
        }
    }

    /// Which Migrators get an entry; the others' states.
    async fn gather(&self, migrators: &[Arc<Guarded>], bundle: &CaBundle, memory: &mut Memory) -> Round {
        let mut round = Round { well: true, ..Round::default() };
        for guarded in migrators {
            let (uid, namespace) =
                (guarded.uid().unwrap_or_default(), guarded.namespace().unwrap_or_default());
            let Ok(migrator) = &guarded.0 else {
                round.staying.insert(uid);
                continue;
            };
            if is_excluded(&namespace, &self.namespace) {
                round.states.extend([state(migrator, Gate::Excluded)]);
                continue;
            }
            if validate(&migrator.spec).is_err() {
                continue;
            }
            match self.trusted(&uid, &namespace, bundle, memory).await {
                Ok(()) => round.gated.push(Arc::clone(guarded)),
                Err(why) => {
                    round.states.extend([state(migrator, Gate::Pending(why))]);
                    round.staying.insert(uid);
                    round.well = false;
                }
            }
        }
        round
    }

    /// Sees to it that the waiters of a Migrator know whom to trust.
    async fn trusted(
        &self,
        uid: &str,
        namespace: &str,
        bundle: &CaBundle,
        memory: &mut Memory,
    ) -> Result<(), String> {
        if memory.bundled.contains(uid) {
            return Ok(());
        }
        match certificates::ensure_bundle(&self.client, namespace, bundle).await {
            Ok(()) => {
                memory.bundled.insert(uid.to_owned());
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%namespace, %error, "cannot write the certificates that waiters trust");
                Err(format!("the ConfigMap {} can't be written: {error}", names::CA_BUNDLE_CONFIG_MAP))
            }
        }
    }

    fn desired(&self, round: &Round, bundle: &CaBundle) -> BTreeMap<String, Vec<Entry>> {
        let endpoint = Endpoint { namespace: self.namespace.clone(), ca_bundle: bundle.base64() };
        let readable: Vec<&Migrator> =
            round.gated.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
        let gated = readable.into_iter().map(|migrator| {
            let metadata = &migrator.metadata;
            Gated {
                uid: metadata.uid.as_deref().unwrap_or_default(),
                resource_version: metadata.resource_version.as_deref().unwrap_or_default(),
                namespace: metadata.namespace.as_deref().unwrap_or_default(),
                spec: &migrator.spec,
                status: migrator.status.as_ref(),
                open: Requests::of(migrator).open,
            }
        });
        configurations(gated, &endpoint)
    }

    /// Proves that the API server, trusting `bundle`, reaches the webhook; once, since the entries
    /// themselves tell everyone later. Where it can't be proven: what to say of Migrators.
    async fn prove(
        &self,
        bundle: &CaBundle,
        all: &BTreeMap<String, Vec<Entry>>,
        configurations: &Configurations,
        memory: &mut Memory,
    ) -> Result<(), Gate> {
        if memory.reached_by.as_ref() == Some(bundle) {
            return Ok(());
        }
        let entries = all.get(names::PROBE_CONFIGURATION).map(Vec::as_slice).unwrap_or_default();
        let none = BTreeSet::new();
        let desired = Desired { entries, proven: true, staying: &none, moving: &none };
        let put = configurations.put(names::PROBE_CONFIGURATION, &desired).await;
        let refused = put.and_then(|written| written.refused.into_values().next().map_or(Ok(()), Err));
        let outcome = match refused {
            Ok(()) => probe::probe(&self.client, &self.namespace).await.map_err(|why| match why {
                Some(why) => Gate::Unreachable(why),
                None => Gate::Pending("the API server is about to ask the webhook".to_owned()),
            }),
            Err(why) => Err(Gate::Pending(why)),
        };
        match &outcome {
            Ok(()) => {
                tracing::info!("the API server reaches the webhook");
                memory.reached_by = Some(bundle.clone());
                memory.failed_probes = 0;
            }
            Err(Gate::Unreachable(why) | Gate::Pending(why)) if memory.failed_probes.is_power_of_two() => {
                tracing::warn!("webhook entries are not written: {why}");
            }
            Err(_) => {}
        }
        if outcome.is_err() {
            memory.failed_probes = memory.failed_probes.saturating_add(1);
        }
        outcome
    }

    /// Publishes the states, and has those Migrators looked at whose state changed.
    fn tell(&self, migrators: &[Arc<Guarded>], states: States) {
        let before = self.gates.replace(states);
        for guarded in migrators {
            if self.gates.changed(&before, &guarded.uid().unwrap_or_default()) {
                self.queue.push(&guarded.namespace().unwrap_or_default(), &guarded.name_any());
            }
        }
    }
}

/// Puts every configuration in order, and says what is wrong with those where it can't; whether all
/// are in order now.
async fn put_all(
    all: &BTreeMap<String, Vec<Entry>>,
    proven: bool,
    round: &Round,
    configurations: &Configurations,
    memory: &mut Memory,
    faults: &mut BTreeMap<String, String>,
) -> bool {
    let mut home: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, entries) in all {
        home.extend(entries.iter().flat_map(Entry::uids).map(|uid| (uid, name.as_str())));
    }
    let mut in_order: BTreeSet<&str> = BTreeSet::new();
    let mut left: Vec<&str> = all.keys().map(String::as_str).collect();
    // Again for those that still hold the entry of a Migrator whose new one is elsewhere: it goes when
    // that one is there, so that its Pods are held all the while.
    for _ in 0..2 {
        let mut again = Vec::new();
        for name in left {
            let entries = all.get(name).map(Vec::as_slice).unwrap_or_default();
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((entries, proven));
            if !memory.is_in_order(name, hash) {
                let moving = home.iter().filter(|(_, home)| **home != name && !in_order.contains(*home));
                let moving: BTreeSet<_> = moving.map(|(uid, _)| (*uid).to_owned()).collect();
                let desired = Desired { entries, proven, staying: &round.staying, moving: &moving };
                match configurations.put(name, &desired).await {
                    Ok(written) => {
                        if written.moving {
                            again.push(name);
                        }
                        memory.keep(name, hash, written);
                    }
                    Err(why) => {
                        memory.kept.remove(name);
                        faults.insert(name.to_owned(), why);
                        continue;
                    }
                }
            }
            if proven {
                in_order.insert(name);
            }
        }
        for name in &again {
            memory.kept.remove(*name);
        }
        left = again;
    }
    faults.is_empty()
}

/// What to say of the Migrators that have an entry.
fn gates_by_uid<'a>(
    all: &'a BTreeMap<String, Vec<Entry>>,
    unproven: Option<&Gate>,
    faults: &BTreeMap<String, String>,
    memory: &Memory,
) -> BTreeMap<&'a str, Gate> {
    let mut gates = BTreeMap::new();
    for (name, entries) in all {
        for entry in entries {
            let refused = memory.kept.get(name).and_then(|kept| kept.refused.get(entry.name()));
            let gate = match (unproven, faults.get(name), refused) {
                (_, Some(why), _) => Gate::Pending(why.clone()),
                (Some(unproven), None, _) => unproven.clone(),
                (None, None, Some(why)) => Gate::Refused(why.clone()),
                (None, None, None) => Gate::InPlace,
            };
            gates.extend(entry.uids().map(|uid| (uid, gate.clone())));
        }
    }
    gates
}

impl Memory {
    fn is_in_order(&self, name: &str, desired: u64) -> bool {
        let kept = self.kept.get(name);
        kept.is_some_and(|kept| kept.desired == desired && Instant::now() < kept.compare_at)
    }

    /// Remembers a configuration that was put in order. One that had to be changed though nothing else
    /// was desired is being changed by someone else, who is not fought.
    fn keep(&mut self, name: &str, desired: u64, written: Written) {
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
                "something else changes the webhook entries; they are put right again, next time in {pause:?}"
            );
        }
        let kept =
            Kept { desired, refused: written.refused, corrections, compare_at: Instant::now() + pause };
        self.kept.insert(name.to_owned(), kept);
    }

    fn tell_faults(&mut self, faults: &BTreeMap<String, String>) {
        for (configuration, why) in faults {
            if self.faults.get(configuration) != Some(why) {
                tracing::warn!(configuration, "the webhook entries are not in place: {why}");
            }
        }
        self.faults.clone_from(faults);
    }
}
