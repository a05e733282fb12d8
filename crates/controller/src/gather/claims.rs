//! Reads the persistent volume claims that a run would share with serving Pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, Client};
use migrations_core::job::claims_named_by;
use migrations_core::snapshot::{ClaimFacts, Owners};

use super::Error;
use super::owners::unless_refused;

/// The claims that the Pod templates of these owners name, each read once. One that is gone or that
/// may not be read is left out: a run goes on without knowing it, and the scheduler has the last word.
/// Faults that may pass are errors.
pub async fn claims(
    client: &Client,
    namespace: &str,
    owners: &Owners,
) -> Result<BTreeMap<String, ClaimFacts>, Error> {
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace);
    let mut claims = BTreeMap::new();
    for name in claims_named_by(owners) {
        let read = match unless_refused(api.get(&name).await) {
            Ok(read) => read,
            Err(source) => return Err(Error::Claim { name, source }),
        };
        if let Some(claim) = read {
            let access_modes = claim.spec.and_then(|spec| spec.access_modes).unwrap_or_default();
            claims.insert(name, ClaimFacts { access_modes });
        }
    }
    Ok(claims)
}
