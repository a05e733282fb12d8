//! Who of the controller's replicas leads (contract §5: it only saves work; what keeps a migration
//! from running twice are the preconditions of each write).
//!
//! [`Candidate`] is one replica's state. It is told what was read and written, and says what to do
//! next. `now` is a time of the caller's own monotonic clock, as a distance from any fixed moment.
//! Whether a lease has expired is judged by how long it was seen unchanged, never by the times
//! in it: clocks of nodes differ.
//!
//! Two candidates never both lead: the one that leads counts from before its request was sent, the
//! others from after they saw the change. A Lease that was deleted by hand has no version that could
//! be compared, so who sees another object under its name begins only after [`RENEW_DEADLINE`]. A
//! replica that has just started can't tell that from the first Lease ever, and begins at once.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use migrations_api::names;

/// How long others leave a lease alone that they see unchanged.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a leader works after the request that last renewed its lease; well below
/// [`LEASE_DURATION`], so that it has stopped before another one starts.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// How often a leader renews its lease.
pub const RENEW_PERIOD: Duration = Duration::from_secs(2);

/// Pause after a request that was refused or not answered.
pub const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the lease, then [`Candidate::read`].
    Read,
    /// Write [`Candidate::claim`], then [`Candidate::wrote`] or [`Candidate::failed`].
    Write,
    /// Nothing before this time. A leader does its work meanwhile.
    Wait(Duration),
}

/// One replica in the election.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    seen: Option<Seen>,
    /// What was seen may not be what there is.
    outdated: bool,
    /// Of the object that was last seen.
    uid: Option<String>,
    /// While the holder of a deleted Lease may still be at work.
    quiet_until: Duration,
    /// After a request that failed.
    pause_until: Duration,
    /// When the request was sent that last made or kept this one the leader.
    renewed: Option<Duration>,
}

/// The lease as it was last seen.
#[derive(Clone, Debug)]
struct Seen {
    /// None where there is no such object.
    lease: Option<Lease>,
    /// From when on this candidate may take it.
    free: Duration,
}

impl Candidate {
    /// A candidate that knows nothing yet. No other one may ever have the same `identity`.
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            outdated: true,
            uid: None,
            quiet_until: Duration::ZERO,
            pause_until: Duration::ZERO,
            renewed: None,
        }
    }

    /// What to do at `now`.
    pub fn next(&self, now: Duration) -> Step {
        if now < self.pause_until {
            return Step::Wait(self.pause_until);
        }
        let Some(seen) = self.seen.as_ref().filter(|_| !self.outdated) else { return Step::Read };
        let begin = match self.renewed.filter(|_| self.leads(now)) {
            Some(renewed) => renewed + RENEW_PERIOD,
            None => self.free(seen),
        };
        if now < begin { Step::Wait(begin) } else { Step::Write }
    }

    /// Takes up what was read, by a request or on a watch; `None` where there is no such object.
    pub fn read(&mut self, lease: Option<Lease>, now: Duration) {
        self.outdated = false;
        if holder(lease.as_ref()) != Some(&self.identity) {
            self.renewed = None;
        }
        self.recognise(lease.as_ref(), now);
        let unchanged = |seen: &&Seen| version(seen.lease.as_ref()) == version(lease.as_ref());
        let free = match (self.seen.as_ref().filter(unchanged), lease.as_ref()) {
            (Some(seen), _) => seen.free,
            (None, Some(held)) if holder(Some(held)).is_some_and(|it| *it != self.identity) => {
                now + duration(held)
            }
            (None, _) => now,
        };
        self.seen = Some(Seen { lease, free });
    }

    /// The lease with this candidate as its holder. With a version it replaces that one, without
    /// it is created. `wall_clock` is for people who read the lease.
    pub fn claim(&self, wall_clock: Timestamp) -> Lease {
        let mut lease = self.seen.as_ref().and_then(|seen| seen.lease.clone()).unwrap_or_default();
        lease.metadata.name = Some(names::CONTROLLER_LEASE.to_owned());
        let before = lease.spec.take().unwrap_or_default();
        let kept = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| kept).or(Some(MicroTime(wall_clock))),
            renew_time: Some(MicroTime(wall_clock)),
            lease_transitions: Some(if kept { transitions } else { transitions.saturating_add(1) }),
            ..before
        });
        lease
    }

    /// Takes up that [`Self::claim`] was written by a request that was sent at `sent`.
    pub fn wrote(&mut self, lease: Lease, sent: Duration, now: Duration) {
        self.outdated = false;
        self.renewed = Some(sent);
        self.recognise(Some(&lease), now);
        self.seen = Some(Seen { lease: Some(lease), free: sent });
    }

    /// Takes up that a request was refused, as with a conflict, or not answered. Whether it had an
    /// effect is not known.
    pub fn failed(&mut self, now: Duration) {
        self.outdated = true;
        self.pause_until = now + RETRY_PERIOD;
    }

    /// Until when it leads, unless it renews; `None` where it doesn't lead.
    pub fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|renewed| renewed + RENEW_DEADLINE)
    }

    /// Whether it leads at `now`.
    pub fn leads(&self, now: Duration) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// Whether it waits while another one leads, or may.
    pub fn stands_by(&self, now: Duration) -> bool {
        !self.leads(now) && self.seen.as_ref().is_some_and(|seen| now < self.free(seen))
    }

    /// `lease` as it is given back, for others to take at once; `None` where it is not this
    /// candidate's, or one of before may still be at work. Its own work has to have stopped.
    pub fn release(&mut self, mut lease: Lease, now: Duration) -> Option<Lease> {
        self.renewed = None;
        self.outdated = true;
        self.recognise(Some(&lease), now);
        let spec =
            lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))?;
        spec.holder_identity = None;
        Some(lease).filter(|_| self.quiet_until <= now)
    }

    /// From when on it may take what it sees.
    fn free(&self, seen: &Seen) -> Duration {
        // An object has to be there for the others to leave it alone meanwhile.
        if seen.lease.is_some() { seen.free.max(self.quiet_until) } else { seen.free }
    }

    /// Begins to wait where this is another object than before.
    fn recognise(&mut self, lease: Option<&Lease>, now: Duration) {
        let Some(uid) = lease.and_then(|lease| lease.metadata.uid.as_ref()) else { return };
        if self.uid.as_ref().is_some_and(|before| before != uid) {
            self.renewed = None;
            self.quiet_until = now + RENEW_DEADLINE;
        }
        self.uid = Some(uid.clone());
    }
}

fn version(lease: Option<&Lease>) -> Option<&String> {
    lease.and_then(|lease| lease.metadata.resource_version.as_ref())
}

/// Who holds it; an empty name means that it was given back.
fn holder(lease: Option<&Lease>) -> Option<&String> {
    lease?.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// How long it is left alone. Its holder may be of a version with a longer duration.
fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(LEASE_DURATION, |seconds| LEASE_DURATION.max(Duration::from_secs(seconds)))
}
