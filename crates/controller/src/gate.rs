//! Keeps the gate in place (contract §7): the certificates that waiters trust in each namespace with
//! a Migrator, and the webhook entries in the configurations that the manifests ship.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{DynamicObject, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use migrations_api::names;
use migrations_core::entries::{Endpoint, Gated, configurations, differ, entry_name, is_excluded};
use migrations_core::snapshot::{Gate, Requests};
use migrations_core::validate::validate;
use migrations_process::probes::Part;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::certificates::{self, CaBundle};
use crate::watch::{Guarded, Queue};

/// How often everything is compared with what should be there, whether or not something changed:
/// others may have changed it.
const COMPARE: Duration = Duration::from_mins(1);

/// Pause after a failed write.
const RETRY: Duration = Duration::from_secs(2);

/// Which Migrators' Pods are held, and the bell that has it looked at. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    states: Arc<RwLock<HashMap<String, Gate>>>,
    bell: Arc<Notify>,
}

impl Gates {
    /// Has the entries looked at soon.
    pub fn look(&self) {
        self.bell.notify_one();
    }

    /// Whether Pods of the Migrator with this uid are held.
    pub fn of(&self, uid: &str) -> Gate {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let starting = || Gate::Pending("the webhook entry is about to be written".to_owned());
        states.get(uid).cloned().unwrap_or_else(starting)
    }

    fn replace(&self, states: HashMap<String, Gate>) -> HashMap<String, Gate> {
        std::mem::replace(&mut *self.states.write().unwrap_or_else(PoisonError::into_inner), states)
    }
}

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

impl GateKeeper {
    /// Keeps the gate in place for as long as it is polled.
    pub async fn run(mut self) {
        // Before the first list there seems to be no Migrator: every entry in place would be taken
        // away, and with it the gate of Pods that come meanwhile.
        if self.migrators.wait_until_ready().await.is_err() {
            return;
        }
        // What was written last, as a hash: held as it is, it would be most of the controller's memory.
        // A comparison with the cluster is due when it differs, and in time.
        let mut written: BTreeMap<String, u64> = BTreeMap::new();
        // By Migrator, not by namespace: one that was made anew has lost its bundle.
        let mut bundled: HashSet<String> = HashSet::new();
        loop {
            let bundle = match self.bundle.wait_for(Option::is_some).await {
                Ok(bundle) => bundle.clone(),
                Err(_) => return,
            };
            let pause = match bundle {
                Some(bundle) if self.pass(&bundle, &mut written, &mut bundled).await => COMPARE,
                _ => RETRY,
            };
            tokio::select! {
                () = self.gates.bell.notified() => {}
                changed = self.bundle.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    bundled.clear();
                }
                () = tokio::time::sleep(pause) => {
                    written.clear();
                    bundled.clear();
                }
            }
        }
    }

    /// Writes whatever is not as it should be; whether all of it is now.
    async fn pass(
        &mut self,
        bundle: &CaBundle,
        written: &mut BTreeMap<String, u64>,
        bundled: &mut HashSet<String>,
    ) -> bool {
        let migrators = self.migrators.state();
        let mut states = HashMap::new();
        let mut gated = Vec::new();
        let mut undecodable = BTreeSet::new();
        let mut well = true;
        for guarded in &migrators {
            let (uid, namespace) =
                (guarded.uid().unwrap_or_default(), guarded.namespace().unwrap_or_default());
            let Ok(migrator) = &guarded.0 else {
                // Its Pods stay as they are: held, if they were.
                undecodable.insert(entry_name(&uid));
                continue;
            };
            if is_excluded(&namespace, &self.namespace) {
                states.insert(uid, Gate::Excluded);
                continue;
            }
            if validate(&migrator.spec).is_err() {
                continue;
            }
            if !bundled.contains(&uid) {
                match certificates::ensure_bundle(&self.client, &namespace, bundle).await {
                    Ok(()) => drop(bundled.insert(uid.clone())),
                    Err(error) => {
                        tracing::warn!(%namespace, %error, "cannot write the certificates that waiters trust");
                        let why = format!(
                            "the ConfigMap {} can't be written: {error}",
                            names::CA_BUNDLE_CONFIG_MAP
                        );
                        states.insert(uid, Gate::Pending(why));
                        well = false;
                        continue;
                    }
                }
            }
            gated.push((uid, migrator));
        }
        // The same list in the same order gives the same entries.
        gated.sort_by(|(one, _), (other, _)| one.cmp(other));
        let endpoint = Endpoint { namespace: self.namespace.clone(), ca_bundle: bundle.base64() };
        let namespaces: Vec<_> = gated.iter().map(|(_, it)| it.namespace().unwrap_or_default()).collect();
        let requests = gated.iter().zip(&namespaces).map(|((uid, migrator), namespace)| Gated {
            uid,
            namespace,
            spec: &migrator.spec,
            status: migrator.status.as_ref(),
            open: Requests::of(migrator).open,
        });
        let mut faults: HashMap<String, String> = HashMap::new();
        for (name, entries) in configurations(requests, &endpoint) {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&entries);
            if written.get(&name) == Some(&hash) {
                continue;
            }
            match self.write(&name, &entries, &undecodable).await {
                Ok(()) => drop(written.insert(name, hash)),
                Err(why) => {
                    tracing::warn!(configuration = name, "the webhook entries are not in place: {why}");
                    written.remove(&name);
                    faults.extend(entries.iter().map(|entry| (name_of(entry).to_owned(), why.clone())));
                    well = false;
                }
            }
        }
        for (uid, _) in &gated {
            let state = faults.get(&entry_name(uid)).map_or(Gate::InPlace, |why| Gate::Pending(why.clone()));
            states.insert(uid.clone(), state);
        }
        self.tell(&migrators, states);
        if well {
            self.in_place.set(true);
        }
        well
    }

    /// Makes one configuration's entries those desired, if they differ; why not, where it can't.
    async fn write(&self, name: &str, desired: &[Value], keep: &BTreeSet<String>) -> Result<(), String> {
        let resource = kube::api::ApiResource::erase::<MutatingWebhookConfiguration>(&());
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let Some(mut configuration) = api.get_opt(name).await.map_err(|error| error.to_string())? else {
            return Err(format!(
                "MutatingWebhookConfiguration {name} doesn't exist; apply the operator's manifests again"
            ));
        };
        let found = configuration.data.get("webhooks").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut entries = desired.to_vec();
        entries.extend(found.iter().filter(|entry| keep.contains(name_of(entry))).cloned());
        entries.sort_by(|one, other| name_of(one).cmp(name_of(other)));
        if !differ(&found, &entries) {
            return Ok(());
        }
        configuration.data = json!({ "webhooks": entries });
        configuration.metadata.managed_fields = None;
        let parameters =
            PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        api.replace(name, &parameters, &configuration).await.map_err(|error| error.to_string())?;
        tracing::info!(configuration = name, entries = entries.len(), "wrote webhook entries");
        Ok(())
    }

    /// Publishes the states, and has those Migrators looked at whose state changed.
    fn tell(&self, migrators: &[Arc<Guarded>], states: HashMap<String, Gate>) {
        let before = self.gates.replace(states);
        for guarded in migrators {
            let uid = guarded.uid().unwrap_or_default();
            if before.get(&uid) != Some(&self.gates.of(&uid)) {
                self.queue.push(&guarded.namespace().unwrap_or_default(), &guarded.name_any());
            }
        }
    }
}

fn name_of(entry: &Value) -> &str {
    entry.get("name").and_then(Value::as_str).unwrap_or_default()
}
