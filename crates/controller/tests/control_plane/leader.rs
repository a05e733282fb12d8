//! Replicas that elect a leader through a real Lease, under faults. What they do as leader is to
//! say so; that the controller's work may be begun, dropped and begun anew is in the last story.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use migrations_api::names::{self, CONTROLLER_LEASE};
use migrations_controller::lease::Election;
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_testkit::cluster::{ControlPlane, TestNamespace};
use serde_json::json;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;

use super::shop::{Shop, until_ready};

/// Far beyond what any of it takes.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The replica knows that another one leads.
    StandsBy(&'static str),
    Begins(&'static str),
    Works(&'static str),
    /// Its work is dropped.
    Stops(&'static str),
}

use Event::{Begins, StandsBy, Stops, Works};

/// What the replicas of one test did, in order.
#[derive(Clone)]
struct Log(channel::Sender<Vec<Event>>);

impl Log {
    fn new() -> Self {
        Self(channel::Sender::new(Vec::new()))
    }

    fn tell(&self, event: Event) {
        self.0.send_modify(|events| events.push(event));
    }

    async fn until(&self, event: Event) {
        let mut events = self.0.subscribe();
        let found = events.wait_for(|events| events.contains(&event));
        let in_time = tokio::time::timeout(TIMEOUT, found).await.map(|found| found.map(drop));
        in_time.unwrap_or_else(|_| panic!("waited {TIMEOUT:?} for {event:?}")).expect("a sender is here");
    }

    /// All but the steps, after a look at those: nobody works once another one has begun.
    fn turns(&self) -> Vec<Event> {
        let events = self.0.borrow();
        let mut leader = None;
        for event in events.iter() {
            match event {
                Begins(who) => leader = Some(who),
                Works(who) => assert_eq!(Some(who), leader, "{events:?}"),
                StandsBy(_) | Stops(_) => {}
            }
        }
        events.iter().filter(|event| matches!(event, Begins(_) | Stops(_))).copied().collect()
    }
}

/// Says that the work is dropped.
struct Work(Log, &'static str);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.tell(Stops(self.1));
    }
}

async fn replica(client: Client, namespace: String, name: &'static str, log: Log, shutdown: Shutdown) {
    let election = Election::new(client, &namespace, name.to_owned());
    let work = || async {
        log.tell(Begins(name));
        let _dropped = Work(log.clone(), name);
        loop {
            log.tell(Works(name));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    Box::pin(election.work(|| log.tell(StandsBy(name)), work, &shutdown)).await;
}

struct Replica {
    stop: Trigger,
    task: JoinHandle<()>,
}

impl Replica {
    fn start(client: Client, namespace: &TestNamespace, name: &'static str, log: &Log) -> Self {
        let (stop, shutdown) = Shutdown::by_hand();
        let running = replica(client, namespace.name().to_owned(), name, log.clone(), shutdown);
        Self { stop, task: tokio::spawn(running) }
    }

    async fn stop(self) {
        self.stop.request();
        self.task.await.expect("a replica never panics");
    }
}

/// One that leads, and one that stands by.
async fn two(leader: Client, namespace: &TestNamespace) -> (Log, Replica, Replica) {
    let log = Log::new();
    let first = Replica::start(leader, namespace, "first", &log);
    log.until(Works("first")).await;
    let second = Replica::start(namespace.client(), namespace, "second", &log);
    log.until(StandsBy("second")).await;
    (log, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_hands_over_at_once() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let (log, first, second) = two(namespace.client(), &namespace).await;
    first.stop().await;
    let stopped = tokio::time::Instant::now();
    log.until(Begins("second")).await;
    let taken = stopped.elapsed();
    assert!(taken < Duration::from_secs(3), "handed over after {taken:?}");
    second.stop().await;
    assert_eq!(log.turns(), [Begins("first"), Stops("first"), Begins("second"), Stops("second")]);
    let lease = namespace.api::<Lease>().get(CONTROLLER_LEASE).await.expect("the Lease");
    assert_eq!(lease.spec.expect("a spec").holder_identity, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_taken_over() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let (log, first, second) = two(namespace.client(), &namespace).await;
    first.task.abort();
    let crashed = tokio::time::Instant::now();
    log.until(Begins("second")).await;
    let taken = crashed.elapsed();
    assert!(taken < Duration::from_secs(20), "taken over after {taken:?}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_deleted_by_hand_is_made_anew_and_never_do_two_lead() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let (log, first, second) = two(namespace.client(), &namespace).await;
    let leases: Api<Lease> = namespace.api();
    let before = leases.get(CONTROLLER_LEASE).await.expect("the Lease");
    leases.delete(CONTROLLER_LEASE, &DeleteParams::default()).await.expect("a deletion");
    log.until(Stops("first")).await;
    let found =
        |leases: &[Lease]| leases.iter().any(|it| it.metadata.uid != before.metadata.uid).then_some(());
    namespace.until::<Lease, _>("another Lease", found).await;
    // Either of them may be the next one.
    let mut events = log.0.subscribe();
    let begun = |events: &Vec<Event>| events.iter().filter(|event| matches!(event, Begins(_))).count() == 2;
    events.wait_for(begun).await.expect("a sender is here");
    first.stop().await;
    second.stop().await;
    let turns = log.turns();
    assert_eq!(turns[..2], [Begins("first"), Stops("first")]);
    assert!(matches!(turns[2], Begins(_)));
}

/// The API server makes a Lease anew that is replaced but isn't there, unless its uid is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_lease_is_not_brought_back_by_a_late_renewal() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let leases: Api<Lease> = namespace.api();
    let lease = json!({ "metadata": { "name": "late" }, "spec": { "holderIdentity": "first" } });
    let lease: Lease = serde_json::from_value(lease).expect("a Lease");
    let made = leases.create(&PostParams::default(), &lease).await.expect("a Lease");
    leases.delete("late", &DeleteParams::default()).await.expect("a deletion");
    let refused = leases.replace("late", &PostParams::default(), &made).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_has_stopped_before_another_one_starts() {
    let plane = ControlPlane::shared().await;
    let namespace = plane.namespace().await;
    let role = json!({
        "metadata": { "name": "leases" },
        "rules": [{ "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"] }],
    });
    let binding = json!({
        "metadata": { "name": "leases" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": namespace.name() }],
    });
    let role: Role = serde_json::from_value(role).expect("a Role");
    let binding: RoleBinding = serde_json::from_value(binding).expect("a RoleBinding");
    namespace.api().create(&PostParams::default(), &role).await.expect("a Role");
    let bindings: Api<RoleBinding> = namespace.api();
    bindings.create(&PostParams::default(), &binding).await.expect("a RoleBinding");

    let (log, first, second) = two(plane.client_as(namespace.name(), "default"), &namespace).await;
    bindings.delete("leases", &DeleteParams::default()).await.expect("a deletion");
    log.until(Begins("second")).await;
    assert_eq!(log.turns(), [Begins("first"), Stops("first"), Begins("second")]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_that_wakes_goes_on_with_nothing() {
    let namespace = ControlPlane::shared().await.namespace().await;
    let log = Log::new();
    let (pause, paused) = tokio::sync::oneshot::channel();
    let (wake, woken) = std::sync::mpsc::channel::<()>();
    let (stop, shutdown) = Shutdown::by_hand();
    let client = ControlPlane::shared().await;
    let sleeper = {
        let (name, log) = (namespace.name().to_owned(), log.clone());
        std::thread::spawn(move || {
            // Nothing of it makes progress outside of `block_on`: as a program that is stopped.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = runtime.block_on(async { client.client() });
            let mut running = Box::pin(replica(client, name, "first", log, shutdown));
            runtime.block_on(async {
                tokio::select! {
                    () = &mut running => {}
                    _ = paused => {}
                }
            });
            woken.recv().expect("the test wakes it");
            runtime.block_on(running);
        })
    };
    log.until(Works("first")).await;
    let second = Replica::start(namespace.client(), &namespace, "second", &log);
    log.until(StandsBy("second")).await;
    pause.send(()).expect("the leader is there");
    log.until(Works("second")).await;
    wake.send(()).expect("the leader is there");
    log.until(StandsBy("first")).await;
    assert_eq!(log.turns(), [Begins("first"), Begins("second"), Stops("first")]);
    stop.request();
    second.stop().await;
    tokio::task::spawn_blocking(|| sleeper.join()).await.expect("a thread").expect("a replica never panics");
}

/// With the controller's own work: the second replica goes on where the first one stopped.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_goes_on_and_the_one_that_stands_by_is_ready() {
    let plane = ControlPlane::start().await;
    let shop = Shop::open(&plane).await;
    let first = shop.controller();
    until_ready(&first.readiness).await;
    let second = shop.controller();
    until_ready(&second.readiness).await;

    shop.create_migrator().await;
    shop.until_reason("Idle").await;
    shop.deploy("shop:v1").await;
    let run = shop.run_starts("shop:v1").await;
    first.stop().await;
    shop.namespace.end_container(&run, names::RUN_CONTAINER, 0, "").await;
    let status = shop.until_done("shop:v1").await;
    assert_eq!(status.history.len(), 1);
    until_ready(&second.readiness).await;
    second.stop().await;
}
