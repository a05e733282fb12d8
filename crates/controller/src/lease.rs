//! Has the controller's work done by one replica at a time: reads, takes, renews and gives back the
//! Lease. What is done when is decided by [`migrations_core::lease`].

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use migrations_api::names::{CONTROLLER_LEASE, FIELD_MANAGER};
use migrations_core::lease::{Candidate, Step};
use migrations_process::shutdown::Shutdown;
use migrations_process::telemetry::causes;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a request may take. kube's client would wait and repeat for longer than a leader has.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How often giving the lease back is tried: a renewal under way may come in between.
const RELEASES: usize = 3;

/// This replica in the election.
pub struct Election {
    leases: Api<Lease>,
    candidate: Candidate,
    /// Where the candidate's time begins.
    epoch: Instant,
}

impl Election {
    /// For the lease in the operator's `namespace`. No other replica may ever have the same
    /// `identity`.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, candidate: Candidate::new(identity), epoch: Instant::now() }
    }

    /// Has `work` done while this replica leads: dropped where that is lost, begun anew where it is
    /// won again. Each time it waits for another one, `standing_by` is told. Returns once `shutdown`
    /// is requested or the work ends by itself; by then the work is dropped and the lease given back.
    pub async fn work<W: Future<Output = ()>>(
        mut self,
        standing_by: impl Fn(),
        work: impl Fn() -> W,
        shutdown: &Shutdown,
    ) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = self.win(&standing_by) => {}
            }
            tracing::info!("this replica leads");
            let (renewed, leads_until) = channel::channel(self.leads_until());
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = self.hold(&renewed) => {}
                ended = until_lapse(work(), leads_until) => if ended { break },
            }
            tracing::warn!("this replica leads no longer; its work has stopped");
        }
        self.release().await;
    }

    /// Returns once this replica leads.
    async fn win(&mut self, standing_by: impl Fn()) {
        let changes = watcher::watch_object(self.leases.clone(), CONTROLLER_LEASE);
        let mut changes = pin!(changes.default_backoff());
        while !self.candidate.leads(self.now()) {
            match self.candidate.next(self.now()) {
                Step::Read => self.read().await,
                Step::Write => self.write().await,
                Step::Wait(until) => {
                    if self.candidate.stands_by(self.now()) {
                        standing_by();
                    }
                    self.wait(until, changes.as_mut()).await;
                }
            }
        }
    }

    /// Waits for a change of the lease, but not beyond `until`.
    async fn wait(
        &mut self,
        until: Duration,
        mut changes: Pin<&mut impl Stream<Item = watcher::Result<Option<Lease>>>>,
    ) {
        tokio::select! {
            () = sleep_until(self.epoch + until) => {}
            Some(change) = changes.next() => match change {
                Ok(lease) => self.candidate.read(lease, self.now()),
                Err(error) => tracing::debug!(%error, "the watch of the lease was interrupted; trying again"),
            }
        }
    }

    /// Renews the lease, and says until when this replica leads. Returns once it doesn't.
    async fn hold(&mut self, renewed: &channel::Sender<Instant>) {
        while self.candidate.leads(self.now()) {
            match self.candidate.next(self.now()) {
                Step::Read => self.read().await,
                Step::Write => self.write().await,
                Step::Wait(until) => sleep_until((self.epoch + until).min(self.leads_until())).await,
            }
            renewed.send_replace(self.leads_until());
        }
    }

    async fn read(&mut self) {
        match self.answered(self.leases.get_opt(CONTROLLER_LEASE)).await {
            Ok(lease) => self.candidate.read(lease, self.now()),
            Err(error) => self.failed("read", &error),
        }
    }

    async fn write(&mut self) {
        let claim = self.candidate.claim(Timestamp::now());
        let sent = self.now();
        match self.answered(self.put(&claim)).await {
            Ok(lease) => self.candidate.wrote(lease, sent, self.now()),
            Err(error) => self.failed("write", &error),
        }
    }

    /// Gives the lease back, so that another replica needs not wait for it to expire.
    async fn release(&mut self) {
        for _ in 0..RELEASES {
            let released = match self.answered(self.leases.get_opt(CONTROLLER_LEASE)).await {
                Ok(lease) => match lease.and_then(|lease| self.candidate.release(lease, self.now())) {
                    Some(lease) => self.answered(self.put(&lease)).await.map(drop),
                    None => return,
                },
                Err(error) => Err(error),
            };
            match released {
                Ok(()) => return tracing::info!("the lease is given back"),
                Err(error) => self.failed("give back", &error),
            }
        }
    }

    /// Replaces the version that `lease` was read at; creates it where it was not there. It carries
    /// the uid as well: the API server would make a deleted Lease anew.
    async fn put(&self, lease: &Lease) -> kube::Result<Lease> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        if lease.metadata.resource_version.is_some() {
            self.leases.replace(CONTROLLER_LEASE, &params, lease).await
        } else {
            self.leases.create(&params, lease).await
        }
    }

    /// The answer, if it comes in time to matter.
    async fn answered<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        timeout(REQUEST_TIMEOUT, request).await.map_err(|_| Error::Silence)?.map_err(|error| match error {
            kube::Error::Api(status) if matches!(status.code, 404 | 409) => Error::Raced,
            error => Error::Refused(error),
        })
    }

    fn failed(&mut self, what: &str, error: &Error) {
        self.candidate.failed(self.now());
        if matches!(error, Error::Raced) {
            tracing::debug!("the lease was changed in between; reading it again");
            return;
        }
        tracing::warn!(
            error = causes(error),
            lease = CONTROLLER_LEASE,
            "cannot {what} the lease; trying again"
        );
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// The past, where it doesn't lead.
    fn leads_until(&self) -> Instant {
        self.epoch + self.candidate.leads_until().unwrap_or_default()
    }
}

/// Why a request had no effect that is known.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server did not answer within {REQUEST_TIMEOUT:?}")]
    Silence,
    #[error("another replica was faster")]
    Raced,
    #[error("the API server refused")]
    Refused(#[source] kube::Error),
}

/// Does `work` for as long as this replica leads, and says whether it ended by itself. The time is
/// looked at before each step of it: a program that was paused must not go on where it was.
async fn until_lapse(work: impl Future<Output = ()>, leads_until: channel::Receiver<Instant>) -> bool {
    let mut work = pin!(work);
    poll_fn(|context| {
        if Instant::now() >= *leads_until.borrow() {
            return Poll::Ready(false);
        }
        work.as_mut().poll(context).map(|()| true)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a pause the work may be woken before the timers are.
    #[tokio::test(start_paused = true)]
    async fn work_goes_no_step_beyond_the_time() {
        let now = Instant::now();
        let (_renewed, leads_until) = channel::channel(now);
        assert!(!until_lapse(async { panic!("a step") }, leads_until).await);
        let (_renewed, leads_until) = channel::channel(now + Duration::from_secs(1));
        assert!(until_lapse(async {}, leads_until).await);
    }
}
