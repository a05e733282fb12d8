//! Which of the operator's certificates are renewed when, and in which order (contract §7). Makes
//! and reads none.
//!
//! Whoever trusts the webhook learns of a new authority late: kubelets bring a changed `ConfigMap`
//! within a minute or two. So a change of authority has two phases, one write each:
//!
//! ```text
//!            Introduce                    Promote                    Issue            Forget
//! one signs ──────────► another is trusted ──────► the other signs ─────────► serves ────────► one is
//!                       as well, signs nothing      once the bundle has       the new leaf     trusted
//!                       yet                         arrived everywhere        from now on      no more
//! ```
//!
//! A lost authority is the same change without its beginning: what clients were told to trust stays
//! trusted (`Recover`), and what serves goes on serving.

use jiff::{SignedDuration, Timestamp};
use migrations_api::names;

/// How long things live and take. Settings of nobody: tests make years into seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long a certificate authority is valid.
    pub authority: SignedDuration,
    /// How long a serving certificate is valid, at most: never longer than its authority.
    pub leaf: SignedDuration,
    /// How far a certificate's life starts in the past, for machines whose clocks run behind.
    pub skew: SignedDuration,
    /// How long a published bundle takes to everyone who trusts it.
    pub arrival: SignedDuration,
    /// How long an authority stays trusted after the serving certificate was replaced: a replica
    /// that lost the API server serves the one before.
    pub retention: SignedDuration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            authority: SignedDuration::from_hours(10 * 365 * 24),
            leaf: SignedDuration::from_hours(365 * 24),
            skew: SignedDuration::from_hours(1),
            arrival: SignedDuration::from_mins(2),
            retention: SignedDuration::from_hours(24),
        }
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Not before this.
    pub from: Timestamp,
    /// Not after this.
    pub to: Timestamp,
}

/// What matters of a serving certificate that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// When it is valid.
    pub validity: Validity,
    /// The DNS names it speaks for.
    pub names: Vec<String>,
    /// Who signed it.
    pub signer: Signer,
}

/// Who signed a serving certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The authority that signs now.
    Current,
    /// Another one that clients trust.
    Trusted,
    /// One that nobody trusts.
    Unknown,
}

/// Whom clients have been told to trust, as it is written where they look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody: a first install.
    Nobody,
    /// The authority that signs, among others or alone.
    Current,
    /// Others: the Secret of the authority is gone, or isn't the one it was.
    Others,
}

/// The certificates as they are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The authority that signs, if there is one with its key.
    pub current: Option<Validity>,
    /// The authority that is trusted already and doesn't sign yet.
    pub next: Option<Validity>,
    /// Whether others are kept in the bundle that don't sign any more.
    pub old: bool,
    /// Whom clients trust.
    pub told: Told,
    /// Whether clients trust any that the bundle lacks.
    pub unkept: bool,
    /// The serving certificate. None: replicas go on with the one that they have.
    pub leaf: Option<Leaf>,
    /// For how long the next authority has been published, as the clock of whoever decides has seen
    /// it itself: two clocks are never compared, and who takes over waits anew.
    pub published_for: Option<SignedDuration>,
}

/// What is done next: at most one write, so that any other controller can go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is well for now.
    Rest,
    /// The first authority. It signs at once: nobody trusts another.
    Begin,
    /// Whom clients trust is put back into the bundle. An authority that they don't know is only the
    /// next one.
    Recover,
    /// A new authority comes into the bundle as the next one.
    Introduce,
    /// The next authority signs from now on; the one before stays in the bundle.
    Promote,
    /// A new serving certificate by the authority that signs.
    Issue,
    /// Those that don't sign any more leave the bundle.
    Forget,
}

impl Validity {
    /// Of an authority made now.
    pub fn of_authority(now: Timestamp, lifetimes: &Lifetimes) -> Self {
        Self { from: after(now, -lifetimes.skew), to: after(now, lifetimes.authority) }
    }

    /// Of a serving certificate made now by an authority.
    pub fn of_leaf(now: Timestamp, authority: Self, lifetimes: &Lifetimes) -> Self {
        Self { from: after(now, -lifetimes.skew), to: after(now, lifetimes.leaf).min(authority.to) }
    }

    fn holds(self, now: Timestamp) -> bool {
        self.from <= now && now < self.to
    }

    /// Whether it is valid and more than a third of its life is left.
    fn is_fresh(self, now: Timestamp) -> bool {
        self.from <= now && now < self.stale_from()
    }

    fn stale_from(self) -> Timestamp {
        after(self.to, -(self.from.duration_until(self.to) / 3))
    }

    /// Whether less than a sixth is left: half of the time to renew it is over.
    fn is_ending(self, now: Timestamp) -> bool {
        self.to <= after(now, self.from.duration_until(self.to) / 6)
    }
}

/// Names that a serving certificate speaks for: the webhook's Service as the API server and waiters
/// verify it, and as people may call it.
pub fn service_names(namespace: &str) -> Vec<String> {
    let service = names::WEBHOOK_SERVICE;
    ["svc", "svc.cluster.local"].map(|domain| format!("{service}.{namespace}.{domain}")).into()
}

/// The next step.
pub fn decide(facts: &Facts, service_names: &[String], lifetimes: &Lifetimes, now: Timestamp) -> Step {
    let Facts { current, next, old, told, unkept, leaf, published_for } = facts;
    let accepted = |leaf: &Leaf| {
        leaf.signer != Signer::Unknown
            && leaf.validity.holds(now)
            && service_names.iter().all(|name| leaf.names.contains(name))
    };
    // Without a leaf, replicas go on with the one that they have.
    let lasts = leaf.as_ref().is_none_or(|leaf| accepted(leaf) && !leaf.validity.is_ending(now));
    // An authority that serves already is not made better by waiting for its bundle.
    let foreign = current.is_some() && leaf.as_ref().is_none_or(|leaf| leaf.signer != Signer::Current);
    let recovers = if current.is_some() { foreign && lasts } else { *unkept };
    if *told == Told::Others && recovers {
        return Step::Recover;
    }
    let next = next.filter(|next| next.is_fresh(now));
    if next.is_none() && !current.is_some_and(|current| current.is_fresh(now)) {
        let trusted = current.is_some() || *old || *told != Told::Nobody;
        return if trusted { Step::Introduce } else { Step::Begin };
    }
    let signs = current.filter(|current| current.holds(now));
    let serves = |leaf: &Leaf, signs: Validity| {
        let stays = leaf.validity.is_fresh(now) || leaf.validity.to >= signs.to;
        leaf.signer == Signer::Current && accepted(leaf) && stays
    };
    // A bundle that doesn't arrive (somewhere it can't be written) isn't waited for beyond the life
    // of what serves.
    let can_wait = match (signs, leaf) {
        (Some(signs), Some(leaf)) if !serves(leaf, signs) => true,
        _ => lasts,
    };
    let arrived = published_for.is_some_and(|time| time >= lifetimes.arrival);
    if next.is_some() && (arrived || !can_wait) {
        return Step::Promote;
    }
    match (signs, leaf) {
        (Some(signs), Some(leaf)) if serves(leaf, signs) => {
            let forgotten = replaced_at(leaf, lifetimes) <= after(now, -lifetimes.retention);
            if *old && forgotten { Step::Forget } else { Step::Rest }
        }
        (Some(_), _) => Step::Issue,
        (None, _) => Step::Rest,
    }
}

/// How long to rest until something is due by the clock; none if nothing is. Whether the next
/// authority is published yet is for others to say.
pub fn rest(facts: &Facts, lifetimes: &Lifetimes, now: Timestamp) -> Option<SignedDuration> {
    let Facts { current, next, old, told: _, unkept: _, leaf, published_for } = facts;
    let arrives = next.and(*published_for).map(|time| lifetimes.arrival - time);
    let until = |time: Timestamp| now.duration_until(time);
    let renewed = current.filter(|_| next.is_none()).map(|current| until(current.stale_from()));
    let leaf = leaf.as_ref();
    let issued = leaf.map(|leaf| until(leaf.validity.stale_from()));
    let forgotten =
        leaf.filter(|_| *old).map(|leaf| until(after(replaced_at(leaf, lifetimes), lifetimes.retention)));
    // What is overdue and yet not done waits for something else.
    [arrives, renewed, issued, forgotten].into_iter().flatten().filter(SignedDuration::is_positive).min()
}

/// When a serving certificate was made.
fn replaced_at(leaf: &Leaf, lifetimes: &Lifetimes) -> Timestamp {
    after(leaf.validity.from, lifetimes.skew)
}

/// Saturates: no time of ours is near the end of time.
fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(time)
}

#[cfg(test)]
mod tests;
