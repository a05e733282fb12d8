//! Whom clients of the webhook trust, as it is written where they look: the API server in webhook
//! entries, waiters in the `ConfigMap` of their namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, ResourceExt};
use migrations_api::names::{
    CA_BUNDLE_CONFIG_MAP, CA_BUNDLE_KEY, ENTRY_SHARDS, REQUIRED_CONFIGURATION, entry_configuration,
};

use super::Error;
use super::chain::{certificates, is_authority};
use crate::watch::Guarded;

/// Beyond these, nothing that serves can need any: each has signed for days.
const KEPT: usize = 8;

/// The authorities that the API server has been told to trust, the newest last. That entry is there
/// whatever Migrators there are, so the Secrets of the operator may be lost and it still tells.
pub(super) async fn told(client: &Client, now: Timestamp) -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    for bundle in entries(client, REQUIRED_CONFIGURATION).await? {
        for certificate in bundle {
            if is_authority(&certificate, now) && !told.contains(&certificate) {
                told.push(certificate);
            }
        }
    }
    Ok(told.split_off(told.len().saturating_sub(KEPT)))
}

/// The first place where clients look that lacks the certificate: an entry, or a namespace's bundle.
/// A namespace without a bundle has no waiters; the first one it gets will have it.
pub(super) async fn first_without(
    client: &Client,
    migrators: &[Arc<Guarded>],
    certificate: &String,
) -> Result<Option<String>, Error> {
    let shards = (0..ENTRY_SHARDS).map(entry_configuration);
    for configuration in shards.chain([REQUIRED_CONFIGURATION.to_owned()]) {
        let entries = entries(client, &configuration).await?;
        if !entries.iter().all(|bundle| bundle.contains(certificate)) {
            return Ok(Some(format!("MutatingWebhookConfiguration {configuration}")));
        }
    }
    let namespaces: BTreeSet<_> = migrators.iter().filter_map(|migrator| migrator.namespace()).collect();
    for namespace in namespaces {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let map = match maps.get_opt(CA_BUNDLE_CONFIG_MAP).await {
            Ok(map) => map,
            Err(error) => return Err(Error::ReadBundle(namespace, error)),
        };
        let lacks = |map: ConfigMap| {
            let data = map.data.unwrap_or_default();
            !data.get(CA_BUNDLE_KEY).is_some_and(|bundle| certificates(bundle).contains(certificate))
        };
        if map.is_some_and(lacks) {
            return Ok(Some(format!("ConfigMap {CA_BUNDLE_CONFIG_MAP} in namespace {namespace}")));
        }
    }
    Ok(None)
}

/// What each entry of a configuration trusts; nothing where there is no such configuration.
async fn entries(client: &Client, configuration: &str) -> Result<Vec<Vec<String>>, Error> {
    let found = Api::<MutatingWebhookConfiguration>::all(client.clone()).get_opt(configuration).await;
    let found = found.map_err(|error| Error::Clients(configuration.to_owned(), error))?;
    let entries = found.and_then(|it| it.webhooks).unwrap_or_default();
    let bundle = |bytes: k8s_openapi::ByteString| certificates(&String::from_utf8_lossy(&bytes.0));
    Ok(entries
        .into_iter()
        .map(|entry| entry.client_config.ca_bundle.map(bundle).unwrap_or_default())
        .collect())
}
