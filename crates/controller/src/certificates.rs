//! Keeps the operator's own certificates in place: the authority in a Secret that only the
//! controller reads, the serving certificate in one that the webhook reads, and what to trust in a
//! `ConfigMap` of each namespace with a Migrator. What is renewed when is decided by
//! [`migrations_core::certificates`].
//!
//! Every write carries a precondition and is followed by another look, so that two controllers never
//! serve from two authorities, and whoever comes after a crash goes on where it happened.

mod chain;
mod clients;
mod secrets;

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{FutureExt, Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use migrations_api::names::{CA_BUNDLE_CONFIG_MAP, CA_BUNDLE_KEY, CA_SECRET, FIELD_MANAGER, SERVING_SECRET};
use migrations_core::certificates::{Facts, Lifetimes, Step, Told, decide, rest, service_names};
use migrations_process::telemetry::causes;
use serde_json::json;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::watch::Guarded;
use chain::{Authority, issue_leaf, make_authority};
use secrets::{Authorities, Read};

/// Steps of one look at most: five, and some lost races, in each of which another controller has
/// made progress.
const LOOKS: usize = 8;

/// The longest pause: time may be set, and a watch may be silent for a reason.
const PAUSE: Duration = Duration::from_hours(1);

/// Pause after a fault.
const RETRY: Duration = Duration::from_secs(2);

/// The certificates that clients of the webhook trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaBundle {
    /// One most of the time; old and new while an authority is replaced.
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
    /// It isn't known whom clients trust.
    #[error("cannot read MutatingWebhookConfiguration {0}")]
    Clients(String, #[source] kube::Error),
    /// The bundle of a namespace isn't known.
    #[error("cannot read ConfigMap {CA_BUNDLE_CONFIG_MAP} in namespace {0}")]
    ReadBundle(String, #[source] kube::Error),
    /// The bundle didn't get into a namespace.
    #[error("cannot write ConfigMap {CA_BUNDLE_CONFIG_MAP} in namespace {0}")]
    Bundle(String, #[source] kube::Error),
}

/// Puts `bundle` into a namespace with a Migrator. Writes only where it isn't there.
pub async fn ensure_bundle(client: &Client, namespace: &str, bundle: &CaBundle) -> Result<(), Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let unread = |error| Error::ReadBundle(namespace.to_owned(), error);
    let present = maps.get_opt(CA_BUNDLE_CONFIG_MAP).await.map_err(unread)?;
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
    let unwritten = |error| Error::Bundle(namespace.to_owned(), error);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    maps.patch(CA_BUNDLE_CONFIG_MAP, &params, &Patch::Apply(map)).await.map_err(unwritten)?;
    tracing::info!(namespace, "CA bundle written");
    Ok(())
}

/// Makes, renews and replaces the certificates.
pub struct CertificateKeeper {
    client: Client,
    namespace: String,
    lifetimes: Lifetimes,
    migrators: Store<Guarded>,
    bundle: channel::Sender<Option<CaBundle>>,
    metrics: Metrics,
    published: Option<Published>,
}

/// A certificate that was found wherever clients look, and when that was seen first.
///
/// Not when it was written, and not kept anywhere: what counts is that it is there to be read, as
/// this process has seen it by its own clock. A controller that takes over in the middle looks for
/// itself and waits anew. Meanwhile what serves goes on, so that costs nothing.
struct Published {
    certificate: String,
    since: Instant,
}

impl CertificateKeeper {
    /// For the operator in `namespace`. What is to be trusted goes to `bundle`; it has arrived where
    /// it is in the namespaces of `migrators` and in every webhook entry.
    pub fn new(
        client: Client,
        namespace: &str,
        lifetimes: Lifetimes,
        migrators: Store<Guarded>,
        bundle: channel::Sender<Option<CaBundle>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            lifetimes,
            migrators,
            bundle,
            metrics,
            published: None,
        }
    }

    /// Keeps them in place for as long as it is polled: looks when one of the Secrets changes, and
    /// when something is due.
    pub async fn run(mut self) {
        let mut changes = std::pin::pin!(changes(&self.client, &self.namespace));
        loop {
            let pause = match self.look(Timestamp::now()).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = causes(&error), "the certificates are not in place; trying again");
                    RETRY
                }
            };
            tokio::select! {
                Some(()) = changes.next() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes the steps that are due, and returns when to look again if nothing changes.
    pub async fn look(&mut self, now: Timestamp) -> Result<Duration, Error> {
        let service_names = service_names(&self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for _ in 0..LOOKS {
            let told = clients::told(&self.client, now).await?;
            let Read { mut authorities, leaf, authority_secret, leaf_secret } =
                secrets::read(&secrets, &told).await?;
            let facts = Facts {
                current: authorities.current.as_ref().map(|authority| authority.validity),
                next: authorities.next.as_ref().map(|authority| authority.validity),
                old: !authorities.old.is_empty(),
                told: match &authorities.current {
                    _ if told.is_empty() => Told::Nobody,
                    Some(current) if told.contains(&current.pair.certificate) => Told::Current,
                    _ => Told::Others,
                },
                unkept: told.iter().any(|certificate| !authorities.bundle().contains(certificate)),
                leaf,
                published_for: self.published_for(authorities.next.as_ref()).await,
            };
            self.metrics.certificate_expires(facts.leaf.as_ref().map(|leaf| leaf.validity.to));
            let step = decide(&facts, &service_names, &self.lifetimes, now);
            // A bundle that is about to grow isn't told: it may lack what clients trust.
            if !matches!(step, Step::Begin | Step::Recover | Step::Introduce) {
                self.tell(&authorities);
            }
            let new_authority =
                || make_authority(now, &self.lifetimes).map_err(|error| Error::Make(CA_SECRET, error));
            match step {
                Step::Rest => return Ok(self.pause(&facts, now)),
                Step::Issue => {
                    // Nothing is issued without.
                    if let Some(current) = &authorities.current {
                        let leaf = issue_leaf(current, &service_names, now, &self.lifetimes)
                            .map_err(|error| Error::Make(SERVING_SECRET, error))?;
                        secrets::write_leaf(&secrets, leaf_secret, &leaf).await?;
                    }
                    continue;
                }
                Step::Begin => authorities.current = Some(new_authority()?),
                Step::Introduce => authorities.next = Some(new_authority()?),
                Step::Recover => authorities.recover(told),
                Step::Promote => authorities.promote(),
                Step::Forget => authorities.old.clear(),
            }
            if secrets::write_authorities(&secrets, authority_secret, &authorities).await? {
                tracing::info!(?step, trusted = authorities.bundle().len(), "the authority was changed");
            }
        }
        Err(Error::Raced)
    }

    fn tell(&self, authorities: &Authorities) {
        let bundle = Some(CaBundle { pem: authorities.bundle().concat() });
        self.bundle.send_if_modified(|told| {
            let changed = *told != bundle;
            *told = bundle;
            changed
        });
    }

    /// For how long the next authority has been wherever clients look.
    async fn published_for(&mut self, next: Option<&Authority>) -> Option<SignedDuration> {
        let certificate = next?.pair.certificate.clone();
        let since = match self.published.take() {
            Some(published) if published.certificate == certificate => published.since,
            _ => Instant::now(),
        };
        // Before the first list there seems to be no Migrator.
        self.migrators.wait_until_ready().now_or_never()?.ok()?;
        match clients::first_without(&self.client, &self.migrators.state(), &certificate).await {
            Ok(None) => {
                self.published = Some(Published { certificate, since });
                SignedDuration::try_from(since.elapsed()).ok()
            }
            Ok(Some(place)) => {
                tracing::info!(place, "clients don't trust the next authority there yet");
                None
            }
            Err(error) => {
                tracing::warn!(
                    error = causes(&error),
                    "it isn't known whether clients trust the next authority"
                );
                None
            }
        }
    }

    fn pause(&self, facts: &Facts, now: Timestamp) -> Duration {
        let unpublished = facts.next.is_some() && facts.published_for.is_none();
        // Nothing is late meanwhile: a part of what comes after it is often enough.
        let unpublished = unpublished.then_some(self.lifetimes.arrival / 4);
        let due = [rest(facts, &self.lifetimes, now), unpublished].into_iter().flatten().min();
        due.and_then(|due| Duration::try_from(due).ok()).map_or(PAUSE, |due| due.min(PAUSE))
    }
}

/// Something for each change of one of the two Secrets, and after a time without a watch. Their
/// contents stay where they are.
fn changes(client: &Client, namespace: &str) -> impl Stream<Item = ()> + use<> {
    let [authority, leaf] = [CA_SECRET, SERVING_SECRET].map(|name| {
        let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(secrets, only).default_backoff();
        events.filter_map(move |event| {
            std::future::ready(match event {
                Ok(Event::Init | Event::InitApply(_)) => None,
                Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone) => Some(()),
                Err(error) => {
                    tracing::warn!(secret = name, %error, "the watch was interrupted; trying again");
                    None
                }
            })
        })
    });
    stream::select(authority, leaf)
}

#[cfg(test)]
mod tests;
