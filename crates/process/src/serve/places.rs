//! The places of a listener's connections. They are given by source address, so that no client takes
//! them all, and taken from whoever makes no use of one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// How long a connection may be without a request before it has to make room: a new client has this
/// time to shake hands and ask.
const GRACE: Duration = Duration::from_secs(1);

/// How often it is looked again for one that has to make room.
const LOOK: Duration = Duration::from_millis(100);

/// All places. Clones speak of the same ones.
#[derive(Clone)]
pub(crate) struct Places(Arc<Shared>);

struct Shared {
    in_all: usize,
    per_source: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    count: usize,
    by_source: HashMap<IpAddr, Vec<Arc<Activity>>>,
}

impl Places {
    pub(crate) fn new(in_all: usize, per_source: usize) -> Self {
        let (taken, freed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { in_all, per_source, taken, freed }))
    }

    /// A place for a connection from `source`, as soon as there is one; none where that source has
    /// enough of them, all with requests.
    pub(crate) async fn take(&self, source: IpAddr) -> Option<Place> {
        let source = source.to_canonical();
        loop {
            let freed = self.0.freed.notified();
            if let Some(attempt) = self.attempt(source) {
                return attempt.ok();
            }
            // Whether one has become idle for long enough is told by nobody.
            let _ = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// Nothing where all places are taken and in use.
    fn attempt(&self, source: IpAddr) -> Option<Result<Place, Enough>> {
        let mut taken = self.0.taken();
        let of_source = taken.by_source.get(&source).map(Vec::as_slice).unwrap_or_default();
        if of_source.len() >= self.0.per_source {
            match longest_idle(of_source) {
                Some(idle) => taken.evict(source, &idle),
                None => return Some(Err(Enough)),
            }
        }
        if taken.count >= self.0.in_all {
            let by_source = taken.by_source.iter();
            let idle = by_source.filter_map(|(source, of_source)| Some((*source, longest_idle(of_source)?)));
            let (source, idle) = idle.max_by_key(|(_, activity)| activity.idle())?;
            taken.evict(source, &idle);
        }
        let activity = Arc::new(Activity::default());
        taken.by_source.entry(source).or_default().push(Arc::clone(&activity));
        taken.count += 1;
        Some(Ok(Place { of: self.clone(), source, activity }))
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn evict(&mut self, source: IpAddr, activity: &Arc<Activity>) {
        self.remove(source, activity);
        activity.needed.notify_one();
    }

    /// Does nothing where it has been evicted before.
    fn remove(&mut self, source: IpAddr, activity: &Arc<Activity>) {
        let Some(of_source) = self.by_source.get_mut(&source) else { return };
        let Some(index) = of_source.iter().position(|one| Arc::ptr_eq(one, activity)) else { return };
        of_source.swap_remove(index);
        self.count -= 1;
        if of_source.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

/// Of those that have to make room, the one that makes no use of its place for longest.
fn longest_idle(of: &[Arc<Activity>]) -> Option<Arc<Activity>> {
    let idle = of.iter().map(|activity| (activity.idle(), activity)).filter(|(idle, _)| *idle >= GRACE);
    idle.max_by_key(|(idle, _)| *idle).map(|(_, activity)| Arc::clone(activity))
}

/// The source has as many places as one may have.
struct Enough;

/// A place, given back when it is dropped.
pub(crate) struct Place {
    of: Places,
    source: IpAddr,
    activity: Arc<Activity>,
}

impl Place {
    /// What the connection does.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Whose it is.
    pub(crate) fn source(&self) -> IpAddr {
        self.source
    }

    /// Returns once it has been given to another connection.
    pub(crate) async fn is_needed(&self) {
        self.activity.needed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.taken().remove(self.source, &self.activity);
        self.of.0.freed.notify_one();
    }
}

/// Whether a connection has requests, and since when it has none.
pub(crate) struct Activity {
    started: Instant,
    requests: AtomicUsize,
    /// Milliseconds from the start to the end of the last request.
    last: AtomicU64,
    needed: Notify,
}

impl Default for Activity {
    fn default() -> Self {
        let (requests, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { started: Instant::now(), requests, last, needed: Notify::new() }
    }
}

impl Activity {
    /// A request begins; it lasts until what is returned is dropped.
    pub(crate) fn enter(this: &Arc<Self>) -> InFlight {
        this.requests.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(this))
    }

    /// For how long it has had no request.
    pub(crate) fn idle(&self) -> Duration {
        if self.requests.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Acquire)))
    }
}

/// A request.
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}
