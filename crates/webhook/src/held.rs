//! The questions that are held, by Pod: each has one at a time, and those of lost connections. No Pod
//! holds more of them, whatever runs in it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many of one Pod are held.
const MOST: usize = 4;

type Pods = HashMap<String, VecDeque<Arc<Notify>>>;

/// All that are held. Clones speak of the same.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Pods>>);

impl Held {
    /// Holds one more of the Pod with that uid. Where it has enough, the oldest gives way: its waiter may be
    /// long gone.
    pub(crate) fn hold(&self, uid: &str) -> Hold {
        let gives_way = Arc::new(Notify::new());
        let mut pods = self.lock();
        let of_pod = pods.entry(uid.to_owned()).or_default();
        if of_pod.len() >= MOST
            && let Some(oldest) = of_pod.pop_front()
        {
            oldest.notify_one();
        }
        of_pod.push_back(Arc::clone(&gives_way));
        Hold { of: self.clone(), uid: uid.to_owned(), gives_way }
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    of: Held,
    uid: String,
    gives_way: Arc<Notify>,
}

impl Hold {
    /// Returns once newer ones of its Pod have taken its place.
    pub(crate) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut pods = self.of.lock();
        let Some(of_pod) = pods.get_mut(&self.uid) else { return };
        of_pod.retain(|held| !Arc::ptr_eq(held, &self.gives_way));
        if of_pod.is_empty() {
            pods.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_of_a_pod_gives_way_to_the_newest() {
        let held = Held::default();
        let mut holds: Vec<_> = (0..MOST).map(|_| held.hold("a")).collect();
        let other = held.hold("b");
        let newest = held.hold("a");
        let give_way = |hold: &Hold| hold.gives_way().now_or_never().is_some();
        assert!(give_way(&holds[0]));
        assert!(!holds[1..].iter().chain([&other, &newest]).any(give_way));
        holds.truncate(2);
        let further = held.hold("a");
        assert!(!holds[1..].iter().chain([&further]).any(give_way), "there was room");
        drop((holds, other, newest, further));
        assert!(held.lock().is_empty());
    }
}
