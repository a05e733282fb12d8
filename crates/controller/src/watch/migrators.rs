//! The watch of Migrators in all namespaces.

use futures::{Stream, StreamExt};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector, watcher as watch};
use kube::{Api, Client, ResourceExt};
use migrations_process::probes::Part;

use super::{Guarded, Queue};
use crate::gate::Gates;
use crate::watch::labels::RunLabels;
use crate::watch::pods::PodWatches;

/// Starts the watch. The stream has to be polled; it ends only with the program.
pub fn start(
    client: &Client,
) -> (Store<Guarded>, impl Stream<Item = watcher::Result<Event<Guarded>>> + use<>) {
    let (reader, writer) = reflector::store();
    let api = Api::<Guarded>::all(client.clone());
    // Nobody reads the managed fields, which are most of a small object.
    let prune = |migrator: &mut Guarded| migrator.managed_fields_mut().clear();
    let stream = watch(api, watcher::Config::default()).default_backoff().modify(prune).reflect(writer);
    (reader, stream)
}

/// Who is told of Migrators that come, change and go.
pub struct Concerned {
    /// Follow the Pods that they select.
    pub pods: PodWatches,
    /// Finds them by their run label.
    pub labels: RunLabels,
    /// Keep their webhook entries.
    pub gates: Gates,
    /// Has them looked at.
    pub queue: Queue,
}

impl Concerned {
    fn came(&self, guarded: &Guarded) {
        let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
        self.pods.follow(&namespace, &name, guarded.0.as_ref().ok());
        self.labels.add(&namespace, &name);
        self.queue.push(&namespace, &name);
    }

    fn went(&self, namespace: &str, name: &str) {
        self.pods.forget(namespace, name);
        self.labels.remove(namespace, name);
        self.queue.push(namespace, name);
    }
}

/// Tells everyone concerned of each change, for as long as it is polled.
pub async fn follow(
    stream: impl Stream<Item = watcher::Result<Event<Guarded>>>,
    store: Store<Guarded>,
    concerned: Concerned,
    synced: Part,
) {
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Apply(migrator)) => {
                concerned.came(&migrator);
                concerned.gates.look();
            }
            Ok(Event::Delete(migrator)) => {
                concerned.went(&migrator.namespace().unwrap_or_default(), &migrator.name_any());
                concerned.gates.look();
            }
            Ok(Event::InitDone) => {
                for (namespace, name) in concerned.labels.migrators() {
                    if store.get(&ObjectRef::new(&name).within(&namespace)).is_none() {
                        concerned.went(&namespace, &name);
                    }
                }
                store.state().iter().for_each(|migrator| concerned.came(migrator));
                concerned.gates.look();
                synced.set(true);
            }
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => report(&error),
        }
    }
}

fn report(error: &watcher::Error) {
    let missing = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    };
    if missing {
        tracing::error!(
            "the API server doesn't know migrators.{}; install the operator again ('kubectl apply' or 'helm upgrade'), \
             which brings the definition; waiting for it",
            migrations_api::names::GROUP
        );
    } else {
        tracing::warn!(%error, "the watch of Migrators was interrupted; trying again");
    }
}
