//! Migrators.

use migrations_api::{Migrator, MigratorStatus};
use serde_json::json;

use super::Object;

/// A Migrator that selects nothing yet.
pub fn migrator(name: &str) -> Object<Migrator> {
    Object::new("migrations.coderanger.net/v1beta1", "Migrator", name)
        .generation(1)
        .with(json!({ "spec": { "selector": {} } }))
}

impl Object<Migrator> {
    /// Selects Pods with this label, beside those said before.
    pub fn selecting(self, label: &str, value: &str) -> Self {
        self.with(json!({ "spec": { "selector": { "matchLabels": { label: value } } } }))
    }

    /// Takes the run's template only from Pods with this label.
    pub fn taking_templates_from(self, label: &str, value: &str) -> Self {
        self.with(json!({ "spec": { "templateSelector": { "matchLabels": { label: value } } } }))
    }

    /// Sets the run's command.
    pub fn command<const N: usize>(self, command: [&str; N]) -> Self {
        self.with(json!({ "spec": { "command": command.as_slice() } }))
    }

    /// Sets the run's arguments.
    pub fn args<const N: usize>(self, args: [&str; N]) -> Self {
        self.with(json!({ "spec": { "args": args.as_slice() } }))
    }

    /// Sets the run's image.
    pub fn image(self, image: &str) -> Self {
        self.with(json!({ "spec": { "image": image } }))
    }

    /// Sets how often a failed run is tried again.
    pub fn backoff_limit(self, limit: i32) -> Self {
        self.with(json!({ "spec": { "backoffLimit": limit } }))
    }

    /// Names the container whose image is migrated.
    pub fn named_container(self, name: &str) -> Self {
        self.with(json!({ "spec": { "container": name } }))
    }

    /// Sets its status.
    pub fn status(self, status: &MigratorStatus) -> Self {
        self.with(json!({ "status": status }))
    }
}
