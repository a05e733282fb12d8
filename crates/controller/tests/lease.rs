//! What a replica does with the Lease while requests fail, on a clock that the test moves. Between
//! replicas on a real API server: `control_plane/leader.rs`.
#![allow(clippy::unwrap_used, reason = "a test ends with a panic")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use migrations_api::names::CONTROLLER_LEASE;
use migrations_controller::lease::Election;
use migrations_core::lease::{RENEW_DEADLINE, RENEW_PERIOD};
use migrations_process::shutdown::{Shutdown, Trigger};
use migrations_testkit::recording::{Fault, RecordingServer};
use rstest::rstest;
use serde_json::Value;
use tokio::time::{Instant, advance, sleep, timeout};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/operator/leases/migrations-controller";

/// The work of a leader, as it is seen.
#[derive(Default)]
struct Work {
    begun: AtomicUsize,
    steps: AtomicUsize,
    stopped: AtomicUsize,
}

impl Work {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    async fn done(self: Arc<Self>) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let _dropped = Dropped(self.clone());
        loop {
            self.steps.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

struct Dropped(Arc<Work>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.stopped.fetch_add(1, Ordering::Relaxed);
    }
}

fn replica(server: &RecordingServer) -> (Arc<Work>, Trigger, impl Future<Output = ()> + use<>) {
    let work = Arc::new(Work::default());
    let (stop, shutdown) = Shutdown::by_hand();
    let election = Election::new(server.client(), "operator", "us".to_owned());
    let doing = work.clone();
    let running = async move { election.work(|| {}, || doing.clone().done(), &shutdown).await };
    (work, stop, running)
}

fn holder(server: &RecordingServer) -> Value {
    server.object(PATH).unwrap()["spec"]["holderIdentity"].clone()
}

#[rstest]
#[case::refused(Fault::refuse(Method::PUT, CONTROLLER_LEASE, 500))]
#[case::not_answered(Fault::silence(Method::PUT, CONTROLLER_LEASE))]
#[case::forbidden(Fault::refuse(Method::PUT, CONTROLLER_LEASE, 403))]
#[tokio::test(start_paused = true)]
async fn renewals_that_fail_end_the_work_in_time_and_it_begins_anew_after_them(#[case] fault: Fault) {
    let server = RecordingServer::new();
    let (work, _stop, running) = replica(&server);
    let running = tokio::spawn(running);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(work.begun(), 1);
    let begun = Instant::now();
    // More than fit into the deadline.
    (0..12).for_each(|_| server.fail(fault.clone()));
    while work.stopped.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() <= RENEW_DEADLINE, "stopped after {:?}", begun.elapsed());
    sleep(Duration::from_mins(1)).await;
    assert_eq!(work.begun(), 2);
    running.abort();
}

#[rstest]
#[case::one_is_refused(Fault::refuse(Method::PUT, CONTROLLER_LEASE, 500))]
#[case::one_is_not_answered(Fault::silence(Method::PUT, CONTROLLER_LEASE))]
#[case::the_answer_is_lost(Fault::lose_answer(Method::PUT, CONTROLLER_LEASE))]
#[case::the_api_client_has_repeated_it(Fault::lose_answer_with(Method::PUT, CONTROLLER_LEASE, 409))]
#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_once_costs_nothing(#[case] fault: Fault) {
    let server = RecordingServer::new();
    let (work, _stop, running) = replica(&server);
    let running = tokio::spawn(running);
    sleep(Duration::from_secs(1)).await;
    server.fail(fault);
    sleep(Duration::from_mins(1)).await;
    assert_eq!((work.begun(), work.stopped.load(Ordering::Relaxed)), (1, 0));
    running.abort();
}

/// A program that was stopped, or a node that was: on its first step it looks at the time.
#[tokio::test(start_paused = true)]
async fn a_leader_that_wakes_after_the_deadline_does_not_go_on_with_its_work() {
    let server = RecordingServer::new();
    let (work, _stop, running) = replica(&server);
    let mut running = Box::pin(running);
    let _ = timeout(Duration::from_secs(1), &mut running).await;
    assert!(work.steps() > 0);
    let steps = work.steps();
    advance(RENEW_DEADLINE).await;
    // Another one leads by now.
    server.fail(Fault::silence(Method::PUT, CONTROLLER_LEASE));
    let _ = timeout(Duration::from_millis(1), &mut running).await;
    assert_eq!(work.steps(), steps);
    assert_eq!(work.stopped.load(Ordering::Relaxed), 1);
}

#[rstest]
#[case::in_the_middle_of_a_renewal(Fault::silence(Method::PUT, CONTROLLER_LEASE), RENEW_PERIOD)]
#[case::while_a_late_renewal_arrives(Fault::refuse(Method::PUT, CONTROLLER_LEASE, 409), Duration::ZERO)]
#[tokio::test(start_paused = true)]
async fn an_orderly_end_stops_the_work_and_gives_the_lease_back(
    #[case] fault: Fault,
    #[case] until: Duration,
) {
    let server = RecordingServer::new();
    let (work, stop, running) = replica(&server);
    let running = tokio::spawn(running);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(holder(&server), "us");
    server.fail(fault);
    sleep(until).await;
    stop.request();
    running.await.unwrap();
    assert_eq!(work.stopped.load(Ordering::Relaxed), 1);
    assert_eq!(holder(&server), Value::Null);
}
