//! The status of a Migrator (contract §6): what connects the controller, which writes it, with the
//! webhook, which answers waiters from it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has been migrated, what is being migrated, and who waits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::unwrap_descriptions)]
pub struct MigratorStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Reconciling and Stalled by the rules of kstatus; `MigrationsReady` as Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// The image whose migrations succeeded last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_migration: Option<String>,

    /// The value of the annotation `migrations.coderanger.net/run` that was taken up last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_run: Option<String>,

    /// `spec.image` as it was taken up last: another one makes what is deployed due once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_image: Option<String>,

    /// The Pod that the last run was cloned from, and its workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// The run that is claimed or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentRun>,

    /// What Pods no longer wait for, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<DoneKey>,

    /// Older revisions whose Pods wait although nothing will be run for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<SupersededRevision>,

    /// Revisions of Deployments with waiting Pods for which the event `ProgressDeadlineNear` was sent: their
    /// `progressDeadlineSeconds` is about to pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deadlines_told: Vec<String>,

    /// Runs that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunRecord>,

    /// The container whose image is the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,

    /// How many Pods wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<i32>,

    /// How many Pods whose image is not done run without having waited, because they are older than
    /// the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ungated: Option<i32>,
}

/// Where a run's Pod template came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// API version of the workload.
    pub api_version: String,
    /// Kind of the workload, `Pod` for a Pod without one.
    pub kind: String,
    /// Name of the workload.
    pub name: String,
    /// Uid of the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The Pod that led to it.
    pub pod: String,
    /// The revision of that Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// A run from its claim to its record (contract §5).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentRun {
    /// What is being migrated: the image of the key container in its workload's template, with a
    /// hash of that template where `rerunOn` is `Template`.
    pub key: String,
    /// The image that runs.
    pub image: String,
    /// Name of the Job.
    pub job: String,
    /// Uid of the Job, once it is bound. A Job is only ever started after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_uid: Option<String>,
    /// Which attempt at the key this is, from 1.
    pub attempt: i32,
    /// Hash of the run's spec and Pod template.
    pub run_hash: String,
    /// Token of the newest run that was asked for by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How many attempts at the same have failed before this one.
    #[serde(default)]
    pub failures: i32,
    /// When it was claimed, or, once its Job was started, when that was.
    pub started: MicroTime,
    /// Why it is being given up, its container never having started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<String>,
}

/// A key that Pods no longer wait for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoneKey {
    /// The image of the key container in its workload's template, with a hash of that template where
    /// `rerunOn` is `Template`.
    pub key: String,
    /// The image that ran for it.
    pub image: String,
    /// How it came to be done.
    pub how: How,
    /// Revisions whose Pods are released by this, although their own image isn't the key: another
    /// webhook rewrote it, or they follow another workload. The uid of a Pod where no revision tells
    /// it from others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<String>,
    /// Due once more, by request or because `spec.image` changed. Holds no Pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rerun: bool,
}

impl DoneKey {
    /// A key that is done since `image` ran for it, or for another reason.
    pub fn new(key: String, image: String, how: How) -> Self {
        Self { key, image, how, revisions: Vec::new(), rerun: false }
    }
}

/// An older revision whose Pods wait, and nothing will be run for them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupersededRevision {
    /// The revision: uid of the Pods' controller, with the hash of its template where it has one; the
    /// uid of a Pod where no revision tells it from others.
    pub revision: String,
    /// What replaced it, and the way out.
    pub reason: String,
}

/// How a key came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum How {
    /// A run succeeded.
    Succeeded,
    /// An application container of that image had started before anything was run for it.
    Baseline,
    /// Someone said so, by the annotation `migrations.coderanger.net/done`.
    Marked,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// What was migrated.
    pub key: String,
    /// The image that ran.
    pub image: String,
    /// Name of its last Job; the newest ones are kept for their logs.
    pub job: String,
    /// Number of that Job, as in its name.
    pub attempt: i32,
    /// How many attempts there were at the same, without anything else in between.
    #[serde(default = "one")]
    pub attempts: i32,
    /// Hash of the run's spec and Pod template: a failed run is tried again when it changes.
    pub run_hash: String,
    /// Token of the newest run that was asked for by then: one without a result is run again only by
    /// another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// When the migration's container started; when the run was claimed where it never did.
    pub started: MicroTime,
    /// When it ended.
    pub finished: MicroTime,
    /// How it ended.
    pub result: RunResult,
    /// The run's last output, or why there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Records of earlier versions speak of one attempt each.
fn one() -> i32 {
    1
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RunResult {
    /// The migration's container exited with 0.
    Succeeded,
    /// It exited with another code, or an init container failed.
    Failed,
    /// Nobody saw it end: it may have done its work or a part of it.
    Unknown,
    /// Given up before its container started, because another image waits.
    NotStarted,
}
