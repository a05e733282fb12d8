//! The spec of a Migrator (contract §2). Doc comments become `kubectl explain`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::MigratorStatus;

/// What to run, and which Pods wait for it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "migrations.coderanger.net",
    version = "v1beta1",
    kind = "Migrator",
    namespaced,
    status = "MigratorStatus",
    derive = "PartialEq",
    doc = "Runs an application's database migrations once per image, before Pods of that image start.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether every image in use is migrated"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready, or not"}"#,
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".status.lastSuccessfulMigration","description":"The image migrated last"}"#,
    printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting","description":"Pods that wait for a migration"}"#,
    printcolumn = r#"{"name":"Last Run","type":"date","jsonPath":".status.history[0].finished","description":"Time since a migration ended"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct MigratorSpec {
    /// The Pods that wait for migrations, by their labels. Workloads of several kinds may share one
    /// Migrator.
    pub selector: LabelSelector,

    /// Which of the selected Pods a run may be cloned from, by their labels. All of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
}
