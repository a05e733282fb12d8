//! Marks Pods whose waiters were released, in its own time: nothing waits for a mark, and after an
//! upgrade there may be tens of thousands to write.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use migrations_api::names;
use migrations_core::released::{mark, needs_mark};
use migrations_core::snapshot::PodFacts;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::watch::pods::PodWatches;

/// Time between two writes, over all namespaces.
const PACE: Duration = Duration::from_millis(100);

/// How many are written before the Pods are looked through again: some have gone by then.
const ROUND: usize = 100;

/// Changes of Pods come in crowds; they are looked through once for all of them.
const GATHER: Duration = Duration::from_secs(2);

/// When a Pod is tried again that still has no mark. It was refused, or the watch is late.
const AGAIN: Duration = Duration::from_mins(5);

/// Marks the Pods of `pods`.
pub struct Marks {
    /// For the writes.
    pub client: Client,
    /// Pods that a Migrator selects.
    pub pods: PodWatches,
}

/// A Pod to be marked.
struct Unmarked {
    namespace: String,
    name: String,
    uid: String,
}

/// When Pods were tried that still have no mark, by uid.
#[derive(Default)]
struct Tried(HashMap<String, Instant>);

impl Marks {
    /// Goes on until it is dropped. While nothing changes, nothing is looked at or written.
    pub async fn run(self) {
        let mut tried = Tried::default();
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let round = tried.next(|see| self.pods.visit(see), Instant::now());
            if round.is_empty() {
                let again = tried.again();
                tokio::select! {
                    () = self.pods.changed() => sleep(GATHER).await,
                    () = again => {}
                }
            }
            let mut refused = None;
            for pod in round {
                pace.tick().await;
                if let Err(error) = self.mark(&pod).await {
                    refused = Some((pod, error));
                }
            }
            if let Some((Unmarked { namespace, name, .. }, error)) = refused {
                tracing::warn!(
                    namespace, name, %error,
                    "Pods can't be marked as released, the last being this one; trying again in {AGAIN:?}. Until then \
                     their waiters have to ask if they run again"
                );
            }
        }
    }

    async fn mark(&self, pod: &Unmarked) -> Result<(), kube::Error> {
        let Unmarked { namespace, name, uid } = pod;
        let parameters =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
        match pods.patch_metadata(name, &parameters, &Patch::Merge(mark(uid))).await {
            Ok(_) => Ok(()),
            // Gone, or another Pod of that name: an API server says 409 or 422 to its uid.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Tried {
    /// The Pods to mark next. Forgets those that have their mark or are gone.
    fn next(&mut self, visit: impl FnOnce(&mut dyn FnMut(&str, &PodFacts)), now: Instant) -> Vec<Unmarked> {
        let (mut round, mut tried) = (Vec::new(), HashMap::new());
        visit(&mut |namespace, pod| {
            if !needs_mark(pod) || tried.contains_key(&pod.uid) {
                return;
            }
            let lately = self.0.get(&pod.uid).filter(|time| now < **time + AGAIN);
            if let Some(time) = lately {
                tried.insert(pod.uid.clone(), *time);
            } else if round.len() < ROUND {
                tried.insert(pod.uid.clone(), now);
                let (namespace, name) = (namespace.to_owned(), pod.name.clone());
                round.push(Unmarked { namespace, name, uid: pod.uid.clone() });
            }
        });
        self.0 = tried;
        round
    }

    /// Waits until the first of them is to be tried again; for ever where there is none.
    async fn again(&self) {
        match self.0.values().min() {
            Some(first) => tokio::time::sleep_until(*first + AGAIN).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use migrations_testkit::builders::pod;
    use migrations_testkit::recording::{Fault, RecordingServer};
    use serde_json::json;

    use super::*;

    const WEB: &str = "/api/v1/namespaces/shop/pods/web";

    fn released(name: &str) -> PodFacts {
        let args = [
            "--namespace=shop",
            "--migrator=shop",
            "--container=app=shop:v1",
            "--server=a:1",
            "--server-name=a",
            "--files=/",
        ];
        let held = pod(name)
            .init_container_with("migrate-wait-shop", "waiter", json!({ "args": args }))
            .container("app", "shop:v1");
        PodFacts::from(&held.running().build())
    }

    fn names_of(round: &[Unmarked]) -> Vec<&str> {
        round.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn a_pod_is_tried_once_until_its_mark_is_seen_and_again_after_a_while() {
        let (mut tried, start) = (Tried::default(), Instant::now());
        let web = released("web");
        // Two Migrators select it.
        let both = |see: &mut dyn FnMut(&str, &PodFacts)| (0..2).for_each(|_| see("shop", &web));
        assert_eq!(names_of(&tried.next(both, start)), ["web"]);
        assert!(tried.next(both, start + AGAIN - PACE).is_empty());
        assert_eq!(names_of(&tried.next(both, start + AGAIN)), ["web"]);
        let marked = PodFacts { released: true, ..web.clone() };
        assert!(tried.next(|see| see("shop", &marked), start + AGAIN).is_empty());
        assert!(tried.0.is_empty(), "what has its mark is forgotten");
    }

    #[test]
    fn a_crowd_is_marked_in_rounds() {
        let (mut tried, now) = (Tried::default(), Instant::now());
        let crowd: Vec<_> =
            (0..=ROUND).map(|number| PodFacts { uid: number.to_string(), ..released("web") }).collect();
        let all = |see: &mut dyn FnMut(&str, &PodFacts)| crowd.iter().for_each(|pod| see("shop", pod));
        let rounds = [(); 3].map(|()| tried.next(all, now).len());
        assert_eq!(rounds, [ROUND, 1, 0]);
    }

    fn marks(server: &RecordingServer) -> Marks {
        let (queue, _) = crate::watch::Queue::new();
        let pods = PodWatches::new(server.client(), queue, crate::watch::runs::RunWatch::default());
        Marks { client: server.client(), pods }
    }

    fn web() -> Unmarked {
        Unmarked { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "pod-web".to_owned() }
    }

    #[tokio::test]
    async fn the_mark_names_the_pod_by_its_uid() {
        let server = RecordingServer::new().holding("pods", &pod("web"));
        marks(&server).mark(&web()).await.unwrap();
        assert_eq!(server.requests()[0].body, mark("pod-web"));
        assert_eq!(server.writes(), [format!("PATCH {WEB}")]);
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_no_fault_and_a_refusal_is_one() {
        for (status, fault) in [(404, false), (409, false), (422, false), (403, true), (500, true)] {
            let server = RecordingServer::new().holding("pods", &pod("web"));
            server.fail(Fault::refuse(Method::PATCH, WEB, status));
            assert_eq!(marks(&server).mark(&web()).await.is_err(), fault, "{status}");
        }
    }
}
