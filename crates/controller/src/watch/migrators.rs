//! The watch of Migrators in all namespaces.

use futures::{Stream, StreamExt};
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch};
use kube::{Api, Client, ResourceExt};
use migrations_process::probes::Part;

use super::{Guarded, Queue};
use crate::gate::Gates;
use crate::watch::pods::PodWatches;

/// Starts the watch. The stream has to be polled; it ends only with the program.
pub fn start(
    client: &Client,
) -> (Store<Guarded>, impl Stream<Item = watcher::Result<Event<Guarded>>> + use<>) {
    let (reader, writer) = reflector::store();
    let api = Api::<Guarded>::all(client.clone());
    let stream = watch(api, watcher::Config::default()).default_backoff().reflect(writer);
    (reader, stream)
}

/// Tells everyone concerned of each change, for as long as it is polled.
pub async fn follow(
    stream: impl Stream<Item = watcher::Result<Event<Guarded>>>,
    store: Store<Guarded>,
    pods: PodWatches,
    gates: Gates,
    queue: Queue,
    synced: Part,
) {
    let mut stream = std::pin::pin!(stream);
    let mut listed = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(migrator) | Event::Delete(migrator)) if listed => {
                if let Some(namespace) = migrator.namespace() {
                    pods.select(&namespace, selectors(&store, &namespace));
                    queue.push(&namespace, &migrator.name_any());
                }
                gates.look();
            }
            Ok(Event::InitDone) => {
                listed = true;
                let mut namespaces = pods.namespaces();
                for migrator in store.state() {
                    let namespace = migrator.namespace().unwrap_or_default();
                    queue.push(&namespace, &migrator.name_any());
                    namespaces.insert(namespace);
                }
                for namespace in namespaces {
                    pods.select(&namespace, selectors(&store, &namespace));
                }
                gates.look();
                synced.set(true);
            }
            Ok(_) => {}
            Err(error) => report(&error),
        }
    }
}

/// The Migrators of a namespace that can be followed, as the Pod watch needs them.
fn selectors(store: &Store<Guarded>, namespace: &str) -> Vec<super::pods::Selected> {
    let mut all: Vec<_> = store
        .state()
        .iter()
        .filter_map(|guarded| guarded.0.as_ref().ok())
        .filter(|migrator| migrator.namespace().as_deref() == Some(namespace))
        .map(|migrator| super::pods::Selected {
            migrator: migrator.name_any(),
            selector: migrations_core::selector::Selector::parse(&migrator.spec.selector).ok(),
        })
        .collect();
    all.sort_by(|one, other| one.migrator.cmp(&other.migrator));
    all
}

fn report(error: &watcher::Error) {
    let missing = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    };
    if missing {
        tracing::error!(
            "the API server doesn't know migrators.{}; install the CustomResourceDefinition \
             (manifests/crd.yaml); waiting for it",
            migrations_api::names::GROUP
        );
    } else {
        tracing::warn!(%error, "the watch of Migrators was interrupted; trying again");
    }
}
