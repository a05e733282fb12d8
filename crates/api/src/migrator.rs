//! The spec of a Migrator (contract §2). Doc comments become `kubectl explain`.
#![expect(unreachable_pub, reason = "KubeSchema makes a public twin of the spec")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{MigratorStatus, schema};

/// What to run, and which Pods wait for it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "migrations.coderanger.net",
    version = "v1beta1",
    kind = "Migrator",
    namespaced,
    status = "MigratorStatus",
    derive = "PartialEq",
    doc = "Runs an application's database migrations once per image, before Pods of that image start.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether every image in use is migrated and new Pods are held"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready, or not"}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".status.lastSuccessfulMigration","description":"The image migrated last"}"#,
    printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting","description":"Pods that wait for a migration"}"#,
    printcolumn = r#"{"name":"Last Run","type":"date","jsonPath":".status.history[0].finished","description":"Time since a migration ended"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
// An object without a spec, which the original accepted, is one that selects nothing.
#[schemars(extend("default" = { "selector": {} }), transform = schema::unwrap_descriptions)]
pub struct MigratorSpec {
    /// The Pods that wait for migrations, by their labels. Workloads of several kinds may share one
    /// Migrator.
    #[schemars(schema_with = "schema::selector")]
    pub selector: LabelSelector,

    /// Which of the selected Pods a run may be cloned from, by their labels. All of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_selector")]
    pub template_selector: Option<LabelSelector>,

    /// Entrypoint of the run's container; the template's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,

    /// Arguments of the run's container; the template's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,

    /// Image of the run's container; the template's by default. What Pods wait for stays the image
    /// of their own container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// Name of the container whose image is migrated and whose configuration the run gets; the first
    /// by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,

    /// Labels added to the run's Job and Pod. The operator's own label `migrations` stays its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,

    /// Annotations added to the run's Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,

    /// Environment variables added to the run's container. One of the same name as the template's
    /// takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::env")]
    pub env: Option<Vec<Value>>,

    /// Sources of environment variables added to the run's container, after the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::env_from")]
    pub env_from: Option<Vec<Value>>,

    /// Resources of the run's container; the template's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::resources")]
    pub resources: Option<Value>,

    /// Service account of the run's Pod; the template's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("not the name of a service account: those hold lower-case letters, digits, `-` and `.`, and start and end with a letter or digit"))]
    pub service_account_name: Option<String>,

    /// How often a failed migration is tried again by itself, 6 times by default. Each attempt is a
    /// Job of its own. 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0")
        .message("must be 0 or more; 0: a failed migration is never tried again by itself"))]
    pub backoff_limit: Option<i32>,

    /// How long an attempt may run, in seconds; without limit by default. When the time is up the
    /// container is killed in the middle of whatever it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 1 && self <= 2147483647")
        .message("must be from 1 to 2147483647 seconds; leave it out for no limit"))]
    pub active_deadline_seconds: Option<i64>,

    /// How many Jobs of successful runs are kept for their logs; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0")
        .message("must be 0 or more; 0: none is kept"))]
    pub successful_jobs_history_limit: Option<i32>,

    /// How many Jobs of failed runs are kept for their logs, the first and the last ones; 2 by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= 0")
        .message("must be 0 or more; 0: none is kept"))]
    pub failed_jobs_history_limit: Option<i32>,

    /// No new migration starts while this is true. One that runs goes on, and Pods keep waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What makes a migration due: `Image`, a new image of the container, or `Template`, any new
    /// revision of the workload. `Image` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Not nullable: an enum would refuse a null that the API server otherwise drops.
    #[schemars(with = "RerunOn")]
    pub rerun_on: Option<RerunOn>,

    /// Migrators of this namespace that name the same lock never run at the same time. Names that
    /// the operator's administrator shares hold for all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')")
        .message("a lock's name holds lower-case letters, digits, `-` and `.`, and starts and ends with a letter or digit"))]
    pub lock: Option<String>,

    /// Names of other containers of the template that the run needs, a database proxy for example.
    /// They become native sidecars, which end with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::container_names")]
    pub keep_containers: Option<Vec<String>>,
}

/// What makes a migration due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RerunOn {
    /// A new image of the container.
    #[default]
    Image,
    /// A new revision of the workload.
    Template,
}
