//! Admission: whether a Pod has to wait, and what is added to it for that (contract §7). It knows
//! nothing of HTTP: what is injected is one description that [`patch`] renders, and that could as
//! well be rendered for a policy inside the API server.
//!
//! A Pod stays raw JSON, so that fields this build doesn't know survive.

mod gates;
mod mesh;
mod patch;
mod platform;
mod pod;
mod resources;
mod waiter;

use migrations_api::{Migrator, RerunOn, names};
use serde_json_borrow::Value;

use crate::selector::Selector;
use crate::snapshot::Requests;
use pod::{Pod, is_named};

pub use gates::Gates;
pub use patch::{Patch, patch};
pub use platform::{Unsupported, UnsupportedPods};
pub use resources::{QuantityError, Resources, quantity};
pub use waiter::Injection;

/// A Migrator as admission sees it: the Pods it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Name of the Migrator.
    pub migrator: String,
    /// The Pods that wait, or why that can't be told.
    pub selector: Result<Selector, String>,
    /// Of those, the Pods that lead; the others follow them. All lead where there is none.
    pub template_selector: Option<Selector>,
    /// Opened by hand: every Pod passes.
    pub open: bool,
    /// The key container, where it is named.
    pub container: Option<String>,
    /// Images of the key container that nobody waits for any more, as the webhook entry has them;
    /// whether or not that entry was what called.
    pub done: Vec<String>,
}

impl Gate {
    /// The gate of a Migrator.
    pub fn of(migrator: &Migrator) -> Self {
        let spec = &migrator.spec;
        let done = migrator.status.iter().flat_map(|status| &status.done).map(|done| done.key.clone());
        let by_image =
            spec.template_selector.is_none() && spec.rerun_on.unwrap_or_default() == RerunOn::Image;
        Self {
            migrator: migrator.metadata.name.clone().unwrap_or_default(),
            selector: Selector::parse(&spec.selector).map_err(|e| format!("spec.selector {e}")),
            template_selector: spec.template_selector.as_ref().and_then(|it| Selector::parse(it).ok()),
            container: spec.container.clone().filter(|name| !name.is_empty()),
            open: Requests::of(migrator).open,
            done: if by_image { done.collect() } else { Vec::new() },
        }
    }

    /// The gate of a Migrator that this build can't read.
    pub fn unreadable(migrator: &str, error: &str) -> Self {
        let migrator = migrator.to_owned();
        let selector = Err(error.to_owned());
        Self { migrator, selector, template_selector: None, open: false, container: None, done: Vec::new() }
    }

    /// Whether the Pod's image is migrated already. One that carries a waiter is dealt with as any
    /// other: what it carries may be old.
    fn lets_past(&self, pod: Pod<'_>) -> bool {
        let waiter = names::waiter_container(&self.migrator);
        let image = pod.image(self.container.as_deref());
        (self.open || image.is_some_and(|image| self.done.iter().any(|done| done == image)))
            && !pod.init_containers().iter().any(|container| is_named(container, &waiter))
    }
}

/// What every injected waiter is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image of the waiter.
    pub image: String,
    /// Where waiters ask, `host:port`, in order.
    pub servers: Vec<String>,
    /// The name in the certificate of those servers.
    pub server_name: String,
    /// What a waiter requests, and its limit.
    pub resources: Resources,
    /// What is done with a Pod that has to wait and can't carry a waiter.
    pub unsupported: UnsupportedPods,
    /// How long a waiter waits at most, in seconds.
    pub timeout: Option<u64>,
}

/// What is to become of a Pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is none of ours.
    Untouched(Untouched),
    /// It must not be created now.
    Refuse {
        /// Which Pod, why, and the fix.
        message: String,
    },
    /// It waits.
    Inject(Box<Injection>),
}

/// Why a Pod is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// It runs a migration: waiting for it would be waiting for itself.
    Run,
    /// It is annotated to start without waiting.
    NoWait,
    /// No Migrator of its namespace selects it.
    NoMatch,
    /// Its image is migrated for each that does, or their gate is open.
    Done,
    /// It mirrors a static Pod, which runs whether or not the mirror exists.
    Mirror,
    /// It would have to wait, but can't carry a waiter, and the settings let such Pods through.
    Unsupported(Unsupported),
}

/// Decides over a Pod that is about to be created in `namespace`, whose Migrators have `gates`.
pub fn decide<'a>(
    pod: &Value<'_>,
    namespace: &str,
    gates: impl IntoIterator<Item = &'a Gate>,
    settings: &Settings,
) -> Verdict {
    let pod = Pod(pod);
    if pod.annotated(names::NO_WAIT_ANNOTATION) {
        let reason = if pod.is_run() { Untouched::Run } else { Untouched::NoWait };
        return Verdict::Untouched(reason);
    }
    if platform::is_mirror(pod) {
        return Verdict::Untouched(Untouched::Mirror);
    }
    let labels = pod.labels();
    let (mut matching, mut past, mut unreadable) = (Vec::new(), false, Vec::new());
    for gate in gates {
        match &gate.selector {
            Ok(selector) if !selector.matches(&labels) => {}
            Ok(_) if gate.lets_past(pod) => past = true,
            Ok(_) => matching.push(gate),
            Err(error) => unreadable.push((gate.migrator.as_str(), error.as_str())),
        }
    }
    if matching.is_empty() && past {
        return Verdict::Untouched(Untouched::Done);
    }
    if !matching.is_empty() {
        return match platform::unsupported(pod) {
            None => Verdict::Inject(Box::new(Injection::of(pod, namespace, &matching, settings))),
            Some(why) if settings.unsupported == UnsupportedPods::Admit => {
                Verdict::Untouched(Untouched::Unsupported(why))
            }
            Some(why) => Verdict::Refuse { message: cannot_wait(pod, namespace, &matching, &why) },
        };
    }
    if pod.annotated(names::REQUIRED_ANNOTATION) {
        return Verdict::Refuse { message: nothing_to_wait_for(pod, namespace, &unreadable) };
    }
    Verdict::Untouched(Untouched::NoMatch)
}

fn nothing_to_wait_for(pod: Pod<'_>, namespace: &str, unreadable: &[(&str, &str)]) -> String {
    let told =
        |(migrator, error): &(&str, &str)| format!(". Migrator {migrator:?} can't be followed: {error}");
    format!(
        "Pod {:?} in namespace {namespace:?} is annotated {}: \"true\", but no Migrator in that namespace selects \
         it; create a Migrator whose spec.selector matches the Pod's labels (what controls the Pod tries again by \
         itself), or take the annotation off{}",
        pod.name(),
        names::REQUIRED_ANNOTATION,
        unreadable.iter().map(told).collect::<String>(),
    )
}

fn cannot_wait(pod: Pod<'_>, namespace: &str, gates: &[&Gate], why: &Unsupported) -> String {
    let migrators: Vec<_> = gates.iter().map(|gate| format!("{:?}", gate.migrator)).collect();
    format!(
        "Pod {:?} in namespace {namespace:?} has to wait for Migrator {}, but can't carry its waiter: {why}, and the \
         waiter is built for Linux on amd64 and arm64; annotate the Pod's template with {}: \"true\" so that it starts \
         without waiting, or change the Migrator's spec.selector (the webhook's --unsupported-pods=admit lets all such \
         Pods through)",
        pod.name(),
        migrators.join(", "),
        names::NO_WAIT_ANNOTATION,
    )
}

#[cfg(test)]
#[path = "inject/tests.rs"]
mod tests;
