//! Keeps the gate in place (contract §7): the certificates that waiters trust in each namespace with
//! a Migrator, and the webhook entries in the configurations that the manifests ship.

mod configuration;
mod in_order;
mod memory;
mod probe;
mod states;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::entries::{Endpoint, Entry, Gated, configurations, is_excluded};
use migrations_core::selector::Selector;
use migrations_core::snapshot::{Gate, Requests};
use migrations_process::probes::Part;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::certificates::CaBundle;
use crate::watch::{Guarded, Queue};
use configuration::{Configurations, Desired, Reach};
use in_order::{gates_by_uid, put_all};
use memory::Memory;
pub use states::Gates;
use states::{States, state};
use trust::Trust;

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
    /// True once every configuration has been in order. What keeps the entries of single namespaces from
    /// being written is told by their Migrators alone.
    pub in_place: Part,
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
}

impl GateKeeper {
    /// Keeps the gate in place for as long as it is polled.
    pub async fn run(mut self) {
        // Before the first list there seems to be no Migrator: every entry in place would be taken
        // away, and with it the gate of Pods that come meanwhile.
        if self.migrators.wait_until_ready().await.is_err() {
            return;
        }
        let mut memory = Memory::new();
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
                }
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    /// Writes whatever is not as it should be; returns when to look again.
    async fn pass(&mut self, bundle: &CaBundle, memory: &mut Memory) -> Instant {
        let migrators = self.migrators.state();
        // Waiters of every one are told: they wait also where their Migrator can't be read or isn't valid
        // any more.
        let mut namespaces: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for guarded in &migrators {
            let namespace = guarded.namespace().unwrap_or_default();
            if !is_excluded(&namespace, &self.namespace) {
                namespaces.entry(namespace).or_default().insert(guarded.uid().unwrap_or_default());
            }
        }
        memory.trust.spread(&self.client, bundle, namespaces).await;
        let mut round = self.gather(&migrators, &memory.trust);
        let endpoint = Endpoint { namespace: self.namespace.clone(), ca_bundle: bundle.base64() };
        let all = desired(&round, &endpoint);
        let configurations = Configurations::new(self.client.clone());

        let unproven = self.prove(bundle, &all, &configurations, memory).await.err();
        let reach = Reach { proven: unproven.is_none(), ca_bundle: &endpoint.ca_bundle };
        let mut faults = BTreeMap::new();
        let done = put_all(&all, &reach, &round.staying, &configurations, memory, &mut faults).await;
        memory.tell_faults(&faults);
        let well = unproven.is_none() && done;

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
        let next = [compare, memory.trust.due()].into_iter().flatten().min();
        match unproven {
            Some(_) => now + probe::pause(memory.failed_probes),
            None => next.filter(|next| well || *next < now + RETRY).unwrap_or(now + RETRY),
        }
    }

    /// Which Migrators get an entry; the others' states.
    fn gather(&self, migrators: &[Arc<Guarded>], trust: &Trust) -> Round {
        let mut round = Round::default();
        for guarded in migrators {
            let (uid, namespace) =
                (guarded.uid().unwrap_or_default(), guarded.namespace().unwrap_or_default());
            if is_excluded(&namespace, &self.namespace) {
                round.states.extend(guarded.0.as_ref().ok().map(|it| state(it, Gate::Excluded)));
                continue;
            }
            match (&guarded.0, trust.of(&namespace)) {
                (Err(_), _) => drop(round.staying.insert(uid)),
                // Whatever else is wrong with a spec, the Pods that it selects wait until that is put right.
                (Ok(migrator), _) if Selector::parse(&migrator.spec.selector).is_err() => {}
                (Ok(_), Ok(())) => round.gated.push(Arc::clone(guarded)),
                (Ok(migrator), Err(why)) => {
                    round.states.extend([state(migrator, Gate::Pending(why))]);
                    round.staying.insert(uid);
                }
            }
        }
        round
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
        let reach = Reach { proven: true, ca_bundle: "" };
        let desired = Desired { entries, reach: &reach, staying: &none, moving: &none };
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

/// The entries of every configuration.
fn desired(round: &Round, endpoint: &Endpoint) -> BTreeMap<String, Vec<Entry>> {
    let readable: Vec<&Migrator> = round.gated.iter().filter_map(|guarded| guarded.0.as_ref().ok()).collect();
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
    configurations(gated, endpoint)
}
