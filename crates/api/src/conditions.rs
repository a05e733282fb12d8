//! Condition types and reasons of a Migrator (contract §6), and how a condition is renewed.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Every image in use is migrated and the gate is in place.
pub const READY: &str = "Ready";
/// The operator is at work (kstatus).
pub const RECONCILING: &str = "Reconciling";
/// Someone has to act (kstatus).
pub const STALLED: &str = "Stalled";
/// `Ready`, under the name that the original used.
pub const MIGRATIONS_READY: &str = "MigrationsReady";

/// The gate is opened by hand: every Pod passes (contract §2).
pub const GATE_OPEN: &str = "GateOpen";

/// The last run has empty directories where the Pods of its `StatefulSet` have claims (contract §4).
pub const CLAIMS_EMPTIED: &str = "ClaimsEmptied";

macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident,)+) => {
        /// Why a condition is as it is, or what an event tells: the one list, so that users can look a reason up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $doc] $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The reason as it stands in a condition and in an event: its name here.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// No Pod matches.
    Idle,
    /// Every image in use is migrated.
    UpToDate,
    /// The webhook entry is not in place yet.
    GatePending,
    /// The API server can't reach the webhook.
    WebhookUnreachable,
    /// The API server refused the webhook entry.
    EntryRefused,
    /// A migration is due and about to start.
    Pending,
    /// A migration runs.
    Running,
    /// A migration failed.
    MigrationFailed,
    /// A run vanished without telling how it ended.
    ResultUnknown,
    /// Pods of an earlier run are not finished; nothing starts beside them.
    EarlierRunUnfinished,
    /// A Job of that name exists and is not this run's.
    ForeignJob,
    /// Pods wait, but no Pod matches `templateSelector`.
    NoSource,
    /// The spec cannot be followed.
    InvalidSpec,
    /// The named container is not in the Pod.
    ContainerNotFound,
    /// The API server refused the Job.
    JobRefused,
    /// `spec.suspend` is true.
    Suspended,
    /// A migration failed and is tried again in a while.
    BackOff,
    /// Another Migrator holds the lock.
    Locked,
    /// The run would share a claim that one Pod alone may use.
    ClaimInUse,
    /// Pods of an older revision wait for what will not be run.
    Superseded,
    /// Pods wait that nothing can release: it can't be told what they were made from.
    PodsStranded,
    /// Pods run without having been held.
    Ungated,
    /// Someone opened the gate by hand.
    GateOpen,
    /// A Deployment is about to be called failed while its Pods wait.
    ProgressDeadlineNear,
    /// A run has empty directories where Pods have claims of their own.
    ClaimsEmptied,
    /// The namespace is one that admission leaves alone.
    NamespaceExcluded,
    /// A migration has succeeded.
    Migrated,
    /// A run was given up before its container started.
    GivenUp,
}

/// A condition of `kind` as of `now`. Its transition time is the one of `before`, the conditions
/// it replaces, where the status has not changed: readers take that time as "since".
pub fn condition(
    before: &[Condition],
    kind: &str,
    status: bool,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if status { "True" } else { "False" };
    let since = before
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    }
}
