//! Which Migrators' Pods are held, told by the keeper of the gate to whoever looks at a Migrator.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use migrations_api::Migrator;
use migrations_core::snapshot::Gate;
use tokio::sync::Notify;

/// The states of all Migrators, and the bell that has them looked at. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    states: Arc<RwLock<States>>,
    bell: Arc<Notify>,
}

/// States by uid.
pub(super) type States = HashMap<String, State>;

/// Whether the Pods are held that were selected when that was found out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) selector: LabelSelector,
    pub(super) gate: Gate,
}

impl Gates {
    /// Has the entries looked at soon.
    pub fn look(&self) {
        self.bell.notify_one();
    }

    /// Whether the Pods that a Migrator selects are held.
    pub fn of(&self, migrator: &Migrator) -> Gate {
        let states = self.states.read().unwrap_or_else(PoisonError::into_inner);
        let state = migrator.metadata.uid.as_ref().and_then(|uid| states.get(uid));
        // Another selector is another entry, which may not be there yet.
        match state.filter(|state| state.selector == migrator.spec.selector) {
            Some(state) => state.gate.clone(),
            None => Gate::Pending("the webhook entry is about to be written".to_owned()),
        }
    }

    /// Returns once someone wants the entries looked at.
    pub(super) async fn asked(&self) {
        self.bell.notified().await;
    }

    /// Takes new states for all; returns those before.
    pub(super) fn replace(&self, states: States) -> States {
        std::mem::replace(&mut *self.states.write().unwrap_or_else(PoisonError::into_inner), states)
    }

    /// Whether a Migrator's state is not what it was.
    pub(super) fn changed(&self, before: &States, uid: &str) -> bool {
        self.states.read().unwrap_or_else(PoisonError::into_inner).get(uid) != before.get(uid)
    }
}

/// Where a Migrator stands.
pub(super) fn state(migrator: &Migrator, gate: Gate) -> (String, State) {
    (migrator.uid().unwrap_or_default(), State { selector: migrator.spec.selector.clone(), gate })
}
