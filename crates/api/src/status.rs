//! The status of a Migrator (contract §6): what connects the controller, which writes it, with the
//! webhook, which answers waiters from it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has been migrated, what is being migrated, and who waits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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

    /// The Pod that the last run was cloned from, and its workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// The run that is claimed or under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentRun>,

    /// What Pods no longer wait for, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<DoneKey>,

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
}

/// A run from its claim to its record (contract §5).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentRun {
    /// What is being migrated: the image that Pods were admitted with.
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
    /// When it was claimed.
    pub started: MicroTime,
}

/// A key that Pods no longer wait for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoneKey {
    /// The image that Pods were admitted with.
    pub key: String,
    /// The image that ran for it.
    pub image: String,
    /// How it came to be done.
    pub how: How,
}

/// How a key came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum How {
    /// A run succeeded.
    Succeeded,
    /// An application container of that image had started before anything was run for it.
    Baseline,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// What was migrated.
    pub key: String,
    /// The image that ran.
    pub image: String,
    /// Name of the Job; the newest ones are kept for their logs.
    pub job: String,
    /// Which attempt at the key this was, from 1.
    pub attempt: i32,
    /// Hash of the run's spec and Pod template: a failed run is tried again when it changes.
    pub run_hash: String,
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
