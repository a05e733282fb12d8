//! Keeps the operator's own certificates in place: the authority in a Secret that only the
//! controller reads, the serving certificate in one that the webhook reads, and what to trust in a
//! `ConfigMap` of each namespace with a Migrator. What is renewed when is decided by
//! [`migrations_core::certificates`].
//!
//! Every write carries a precondition, so that two controllers never serve from two authorities:
//! the one that comes second reads again and takes what the first made.

mod chain;

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use migrations_api::names::{CA_BUNDLE_CONFIG_MAP, CA_BUNDLE_KEY, CA_SECRET, FIELD_MANAGER, SERVING_SECRET};
use migrations_core::certificates::{Renewal, decide, service_names};
use serde_json::json;

use chain::{Pair, Unusable, issue_leaf, make_authority, read_authority, read_leaf};

/// How often a lost race is run again. Each time, another controller has made progress.
const RACES: usize = 3;

/// The authority's Secret. The names are not those of a TLS Secret, so that nobody serves with it.
const AUTHORITY: Form = Form { secret: CA_SECRET, kind: "Opaque", certificate: CA_BUNDLE_KEY, key: "ca.key" };

/// The serving certificate's Secret.
const LEAF: Form =
    Form { secret: SERVING_SECRET, kind: "kubernetes.io/tls", certificate: "tls.crt", key: "tls.key" };

/// The certificates that clients of the webhook trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    /// One today; old and new while an authority is replaced, once that has two phases.
    pem: String,
}

impl CaBundle {
    /// As a webhook configuration wants it.
    pub fn base64(&self) -> String {
        BASE64_STANDARD.encode(&self.pem)
    }

    /// As waiters read it.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// A certificate that isn't in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server didn't give a Secret.
    #[error("cannot read Secret {0}")]
    Read(&'static str, #[source] kube::Error),
    /// The API server didn't take a Secret.
    #[error("cannot write Secret {0}")]
    Write(&'static str, #[source] kube::Error),
    /// No certificate could be made.
    #[error("cannot make a certificate for Secret {0}")]
    Make(&'static str, #[source] rcgen::Error),
    /// Others wrote each time.
    #[error("another controller keeps writing the certificates")]
    Raced,
    /// The bundle didn't get into a namespace.
    #[error("cannot write ConfigMap {CA_BUNDLE_CONFIG_MAP} in namespace {0}")]
    Bundle(String, #[source] kube::Error),
}

/// Makes or renews the certificates in the operator's `namespace` where that is due, and returns
/// what is to be trusted.
pub async fn ensure(client: &Client, namespace: &str, now: Timestamp) -> Result<CaBundle, Error> {
    let secrets = Api::namespaced(client.clone(), namespace);
    for _ in 0..RACES {
        if let Some(bundle) = attempt(&secrets, &service_names(namespace), now).await? {
            return Ok(bundle);
        }
    }
    Err(Error::Raced)
}

/// Puts `bundle` into a namespace with a Migrator. Writes only where it isn't there.
pub async fn ensure_bundle(client: &Client, namespace: &str, bundle: &CaBundle) -> Result<(), Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let failed = |error| Error::Bundle(namespace.to_owned(), error);
    let present = maps.get_opt(CA_BUNDLE_CONFIG_MAP).await.map_err(failed)?;
    let data = present.and_then(|map| map.data).unwrap_or_default();
    if data.get(CA_BUNDLE_KEY) == Some(&bundle.pem) {
        return Ok(());
    }
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": CA_BUNDLE_CONFIG_MAP },
        "data": { CA_BUNDLE_KEY: bundle.pem },
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    maps.patch(CA_BUNDLE_CONFIG_MAP, &params, &Patch::Apply(map)).await.map_err(failed)?;
    tracing::info!(namespace, "CA bundle written");
    Ok(())
}

/// One look and what follows from it. Nothing, where another controller wrote in between.
async fn attempt(
    secrets: &Api<Secret>,
    service_names: &[String],
    now: Timestamp,
) -> Result<Option<CaBundle>, Error> {
    let authority_secret = AUTHORITY.read(secrets).await?;
    let leaf_secret = LEAF.read(secrets).await?;
    let authority = AUTHORITY.usable(authority_secret.as_ref(), read_authority);
    let authority_pair = authority.as_ref().map(|(pair, _)| pair);
    let leaf = LEAF.usable(leaf_secret.as_ref(), |pair| read_leaf(pair, authority_pair));

    let validity = authority.as_ref().map(|(_, validity)| *validity);
    let renewal = decide(validity, leaf.as_ref().map(|(_, leaf)| leaf), service_names, now);
    let kept = if renewal == Renewal::Authority { None } else { authority };
    let authority = if let Some((pair, _)) = kept {
        pair
    } else {
        let made = make_authority(now).map_err(|error| Error::Make(CA_SECRET, error))?;
        if !AUTHORITY.write(secrets, authority_secret, &made).await? {
            return Ok(None);
        }
        made
    };
    if renewal != Renewal::Nothing {
        let made =
            issue_leaf(&authority, service_names, now).map_err(|error| Error::Make(SERVING_SECRET, error))?;
        if !LEAF.write(secrets, leaf_secret, &made).await? {
            return Ok(None);
        }
    }
    Ok(Some(CaBundle { pem: authority.certificate }))
}

/// How a pair is kept in a Secret.
struct Form {
    secret: &'static str,
    kind: &'static str,
    certificate: &'static str,
    key: &'static str,
}

impl Form {
    async fn read(&self, secrets: &Api<Secret>) -> Result<Option<Secret>, Error> {
        secrets.get_opt(self.secret).await.map_err(|error| Error::Read(self.secret, error))
    }

    /// What `read` finds in a Secret; a Secret that can't be used counts as missing, and is told.
    fn usable<T>(
        &self,
        secret: Option<&Secret>,
        read: impl FnOnce(&Pair) -> Result<T, Unusable>,
    ) -> Option<(Pair, T)> {
        let pair = self.pair(secret?);
        match read(&pair) {
            Ok(facts) => Some((pair, facts)),
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(secret = self.secret, %error, source, "the Secret cannot be used and is replaced");
                None
            }
        }
    }

    /// Text that isn't there or isn't UTF-8 fails where it is parsed.
    fn pair(&self, secret: &Secret) -> Pair {
        let text = |key| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
        };
        Pair { certificate: text(self.certificate), key: text(self.key) }
    }

    /// Writes a pair over the Secret that was read, or makes the one that was missing. Returns
    /// whether that was still so.
    async fn write(&self, secrets: &Api<Secret>, read: Option<Secret>, pair: &Pair) -> Result<bool, Error> {
        let Pair { certificate, key } = pair;
        let text = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = BTreeMap::from([
            (self.certificate.to_owned(), text(certificate)),
            (self.key.to_owned(), text(key)),
        ]);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = if let Some(secret) = read {
            // With the resourceVersion that was read.
            secrets.replace(self.secret, &params, &Secret { data: Some(data), ..secret }).await
        } else {
            let metadata = ObjectMeta { name: Some(self.secret.to_owned()), ..ObjectMeta::default() };
            let secret =
                Secret { metadata, data: Some(data), type_: Some(self.kind.to_owned()), ..Secret::default() };
            secrets.create(&params, &secret).await
        };
        match written {
            Ok(_) => {
                tracing::info!(secret = self.secret, "certificate written");
                Ok(true)
            }
            // 404: the Secret was deleted since it was read.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(Error::Write(self.secret, error)),
        }
    }
}

#[cfg(test)]
mod tests;
