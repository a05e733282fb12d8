//! Persistent volume claims that a run shares with serving Pods (contract §4): where it may be, or
//! why it can't be at all.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use migrations_api::Reason;
use serde_json::{Map, Value};

use crate::snapshot::{Owners, PodFacts, Snapshot};
use crate::validate::Refusal;
use crate::workload::template_of;

/// Names of the claims that the Pod templates of these owners name: what [`Snapshot::claims`] is
/// read for.
pub fn claims_named_by(owners: &Owners) -> BTreeSet<String> {
    let objects = owners.values().flatten();
    // An object without a template is a Pod itself.
    let specs = objects.filter_map(|object| template_of(object).unwrap_or(object).get("spec")?.as_object());
    specs.flat_map(claims).map(str::to_owned).collect()
}

/// The node that the run is bound to by a claim that one node at a time may use, if any.
pub(super) fn node(spec: &Map<String, Value>, snapshot: &Snapshot) -> Result<Option<String>, Refusal> {
    let mut bound: Option<Hold<'_>> = None;
    for claim in claims(spec) {
        let Some(facts) = snapshot.claims.get(claim) else { continue };
        let allows = |mode: &str| facts.access_modes.iter().any(|allowed| allowed == mode);
        let users = || snapshot.pods.iter().filter(|pod| pod.unfinished() && uses(pod, claim));
        if allows("ReadWriteOncePod")
            && let Some(pod) = users().next()
        {
            return Err(in_use(format!(
                "claim {claim} may be used by one Pod alone (ReadWriteOncePod) and Pod {} uses it, so that the \
                 run's Pod could never start; end that Pod, make the claim ReadWriteOnce, or have the run cloned \
                 from a workload without it by spec.templateSelector",
                pod.name
            )));
        }
        if !allows("ReadWriteOnce") || allows("ReadWriteMany") || allows("ReadOnlyMany") {
            continue;
        }
        let holds = users().filter_map(|pod| Some(Hold { claim, pod, node: pod.node.as_deref()? }));
        let Some(hold) = holds.min_by_key(Hold::rank) else { continue };
        match &bound {
            Some(other) if other.node != hold.node => {
                return Err(in_use(format!(
                    "the run needs claims {} (ReadWriteOnce, used by Pod {} on node {}) and {} (used by Pod {} on \
                     node {}), and can be on one of these nodes only; end one of the Pods, or have the run cloned \
                     from a workload without one of the claims by spec.templateSelector",
                    other.claim, other.pod.name, other.node, hold.claim, hold.pod.name, hold.node
                )));
            }
            Some(_) => {}
            None => bound = Some(hold),
        }
    }
    Ok(bound.map(|hold| hold.node.to_owned()))
}

/// A Pod that uses a claim on a node.
struct Hold<'a> {
    claim: &'a str,
    pod: &'a PodFacts,
    node: &'a str,
}

impl Hold<'_> {
    /// Lowest for the Pod that has the volume, where several want it on different nodes: one whose
    /// containers could start, then the oldest.
    fn rank(&self) -> (Reverse<bool>, Option<jiff::Timestamp>, String) {
        let mut containers = self.pod.containers.iter().chain(&self.pod.init_containers);
        let started = containers.any(|it| it.state.has_started());
        (Reverse(started), self.pod.created, self.pod.name.clone())
    }
}

fn uses(pod: &PodFacts, claim: &str) -> bool {
    pod.claims.iter().any(|name| name == claim)
}

/// Names of the claims among a Pod spec's volumes.
fn claims(spec: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str())
}

fn in_use(message: String) -> Refusal {
    Refusal { reason: Reason::ClaimInUse, message }
}
