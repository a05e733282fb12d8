//! Locks between Migrators (contract §5): leases in the operator's namespace, one a lock. Here is how
//! they are read, taken and given back; who may is decided in core.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_core::plan::LeaseVersion;
use migrations_core::snapshot::{LockFacts, LockHolder};

/// The locks of an operator's namespace.
#[derive(Clone)]
pub struct Locks {
    api: Api<Lease>,
}

impl Locks {
    /// Locks in the operator's `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    /// Where they are.
    pub fn api(&self) -> &Api<Lease> {
        &self.api
    }

    /// Reads one; `None` where nobody holds it.
    pub async fn read(&self, lease: &str) -> Result<Option<LockFacts>, kube::Error> {
        Ok(self.api.get_opt(lease).await?.as_ref().map(facts))
    }

    /// Takes one for `migrator`: a new lease, or that of a holder that is gone, as it was found. An
    /// error of 404 or 409: somebody else was faster.
    pub async fn take(
        &self,
        lease: &str,
        found: Option<&LeaseVersion>,
        migrator: &Migrator,
    ) -> Result<(), kube::Error> {
        let holder = format!(
            "{}/{}/{}",
            migrator.namespace().unwrap_or_default(),
            migrator.name_any(),
            migrator.uid().unwrap_or_default()
        );
        let wanted = Lease {
            metadata: ObjectMeta {
                name: Some(lease.to_owned()),
                uid: found.map(|found| found.uid.clone()),
                resource_version: found.map(|found| found.resource_version.clone()),
                labels: Some(BTreeMap::from([(names::LOCK_LABEL.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder),
                acquire_time: Some(MicroTime(jiff::Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        let parameters =
            PostParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match found {
            None => self.api.create(&parameters, &wanted).await.map(drop),
            Some(_) => self.api.replace(lease, &parameters, &wanted).await.map(drop),
        }
    }

    /// Gives one back, as it was found.
    pub async fn release(&self, lease: &str, found: &LeaseVersion) -> Result<(), kube::Error> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(found.uid.clone()),
                resource_version: Some(found.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        self.api.delete(lease, &parameters).await.map(drop)
    }
}

/// What decisions read of a lock. Whether its holder is gone is for others to say.
pub fn facts(lease: &Lease) -> LockFacts {
    let identity = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let mut parts = identity.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    LockFacts {
        lease: lease.name_any(),
        uid: lease.uid().unwrap_or_default(),
        resource_version: lease.resource_version().unwrap_or_default(),
        holder: LockHolder { namespace: part(), name: part(), uid: part() },
        abandoned: false,
    }
}
