//! The watches: what they bring goes into the view, the settings and the certificate. They are tried
//! for as long as it takes, and never end by themselves.

use std::collections::HashSet;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Error, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use migrations_api::{Migrator, names};
use migrations_process::telemetry::causes;
use migrations_process::tls::Certificate;
use serde::de::DeserializeOwned;

use crate::settings::InForce;
use crate::view::{Key, View};

/// How long a watch that was interrupted may bring nothing before all is listed anew: that it goes on
/// shows in nothing but what it brings.
const SILENCE: Duration = Duration::from_mins(1);

/// Keeps `view` in step with the cluster's Migrators; calls `synced` once it holds all of them.
pub(crate) async fn migrators(client: Client, view: View, synced: impl Fn()) {
    let mut listed = HashSet::<Key>::new();
    let mut newest = None;
    let api = Api::<DeserializeGuard<Migrator>>::all(client);
    let watch = || watcher(api.clone(), watcher::Config::default()).default_backoff();
    let mut events = pin!(watch());
    loop {
        let patience = if view.is_in_sight() { Duration::MAX } else { SILENCE };
        let Ok(event) = tokio::time::timeout(patience, events.next()).await else {
            events.set(watch());
            continue;
        };
        let Some(event) = event else { return };
        match event {
            Ok(Event::Init) => {
                listed.clear();
                // The list that follows is at least as recent. Its own version isn't told here.
                newest = current_version(&api).await;
            }
            Ok(Event::InitApply(object)) => {
                newest = newest.max(version_of(&object));
                listed.insert(view.apply(pruned(object)));
            }
            // Only now: while a new list comes in, the old one holds.
            Ok(Event::InitDone) => {
                view.retain(&std::mem::take(&mut listed));
                view.restart_at(newest);
                synced();
            }
            Ok(Event::Apply(object)) => {
                let version = object.resource_version();
                view.apply(pruned(object));
                view.advance(version.as_deref());
            }
            Ok(Event::Delete(object)) => {
                view.remove(&(object.namespace().unwrap_or_default(), object.name_any()));
                view.advance(object.resource_version().as_deref());
            }
            Err(error) => {
                view.lose_sight();
                report("Migrators", &error);
            }
        }
    }
}

/// The version at which the API server stands, where it can be had.
async fn current_version(api: &Api<DeserializeGuard<Migrator>>) -> Option<u64> {
    let list = api.list_metadata(&ListParams::default().limit(1)).await.ok()?;
    list.metadata.resource_version?.parse().ok()
}

fn version_of(object: &DeserializeGuard<Migrator>) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

/// Keeps the addresses of the operator's Service in `settings`; calls `synced` once they are known,
/// or known not to be.
pub(crate) async fn service(client: Client, namespace: &str, settings: InForce, synced: impl Fn()) {
    let mut found = false;
    let api = Api::<Service>::namespaced(client, namespace);
    let take = |service: Option<&Service>| {
        if settings.service(service) {
            tracing::info!(servers = ?settings.get().servers, "new waiters ask here");
        }
    };
    follow(api, only(names::WEBHOOK_SERVICE), "the Service of the webhook", |event| match event {
        Event::Init => found = false,
        Event::InitApply(service) | Event::Apply(service) => {
            found = true;
            take(Some(&service));
        }
        Event::InitDone => {
            if !found {
                tracing::warn!(namespace, name = names::WEBHOOK_SERVICE, "there is no such Service yet");
                take(None);
            }
            synced();
        }
        Event::Delete(_) => take(None),
    })
    .await;
}

/// Serves the certificate of the operator's Secret from the next connection on; calls `loaded` when
/// one is in use.
pub(crate) async fn serving_secret(
    client: Client,
    namespace: &str,
    certificate: Certificate,
    loaded: impl Fn(),
) {
    let name = names::SERVING_SECRET;
    let mut found = false;
    let api = Api::<Secret>::namespaced(client, namespace);
    follow(api, only(name), "the Secret of the certificate", |event| match event {
        Event::Init => found = false,
        Event::InitApply(secret) | Event::Apply(secret) => {
            found = true;
            let field = |field| secret.data.iter().flatten().find(|(key, _)| *key == field);
            let (Some((_, chain)), Some((_, key))) = (field("tls.crt"), field("tls.key")) else {
                tracing::warn!(
                    namespace,
                    name,
                    "this Secret lacks tls.crt or tls.key; the controller writes both"
                );
                return;
            };
            match certificate.replace(&chain.0, &key.0) {
                Ok(()) => {
                    tracing::info!(namespace, name, "a certificate is in use");
                    loaded();
                }
                Err(error) => {
                    let error = causes(&error);
                    tracing::warn!(namespace, name, error, "the certificate of this Secret can't be used");
                }
            }
        }
        Event::InitDone => {
            if !found {
                tracing::warn!(namespace, name, "waits for this Secret; the controller writes it");
            }
        }
        Event::Delete(_) => {
            tracing::warn!(namespace, name, "this Secret is gone; its certificate stays in use");
        }
    })
    .await;
}

/// Feeds what a watch brings to `on`.
async fn follow<K>(api: Api<K>, config: watcher::Config, what: &str, mut on: impl FnMut(Event<K>))
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(api, config).default_backoff().into_stream();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => on(event),
            Err(error) => report(what, &error),
        }
    }
}

fn report(what: &str, error: &Error) {
    let fix = match error {
        Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
            "the API server doesn't know them: install the operator's CRD"
        }
        Error::InitialListFailed(kube::Error::Api(status)) if status.code == 403 => {
            "the API server forbids it: install the operator's RBAC"
        }
        _ => "tries again",
    };
    tracing::warn!(error = causes(error), "cannot watch {what}; {fix}");
}

fn only(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Without what only takes room.
fn pruned(mut object: DeserializeGuard<Migrator>) -> DeserializeGuard<Migrator> {
    object.managed_fields_mut().clear();
    object
}

#[cfg(test)]
#[path = "follow/tests.rs"]
mod tests;
