//! Waiting for what a test expects: on a watch, bounded, and with a failure that shows what was there.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a test waits for what it expects. Far beyond what it takes, so that a busy machine
/// fails no test.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Waits until `found` finds what it looks for among the objects of `api`, and returns that. It
/// is asked once when all objects are known and again after each change.
pub async fn until<K, T>(api: &Api<K>, what: &str, mut found: impl FnMut(&[K]) -> Option<T>) -> T
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
{
    let mut objects = Vec::<K>::new();
    let searching = async {
        let mut known = false;
        let mut events = pin!(watcher(api.clone(), watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => objects.clear(),
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                    put(&mut objects, object);
                }
                Ok(watcher::Event::Delete(object)) => objects.retain(|other| other.uid() != object.uid()),
                Ok(watcher::Event::InitDone) => known = true,
                // The resource may not be served yet; the watch tries again.
                Err(_) => {}
            }
            if known && let Some(result) = found(&objects) {
                return result;
            }
        }
        unreachable!("a watch never ends")
    };
    let result = tokio::time::timeout(TIMEOUT, searching).await;
    result.unwrap_or_else(|_| {
        let seen = serde_json::to_string_pretty(&objects).unwrap_or_default();
        panic!("waited {TIMEOUT:?} for {what}; last seen: {seen}")
    })
}

fn put<K: Resource>(objects: &mut Vec<K>, object: K) {
    match objects.iter_mut().find(|other| other.uid() == object.uid()) {
        Some(other) => *other = object,
        None => objects.push(object),
    }
}
