//! What the operator's images are called and what is said of them: `nix/images.json`, for Nix and the harness alike.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::architecture::Architecture;

/// The operator has one version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the images have in common.
#[derive(Deserialize)]
pub(crate) struct Description {
    registry: String,
    user: String,
    /// By the names that the images have after `migrations-`.
    pub(crate) programs: BTreeMap<String, Program>,
}

/// A program with an image of its own.
#[derive(Deserialize)]
pub(crate) struct Program {
    /// What it is compiled with.
    pub(crate) profile: String,
    description: String,
    /// How large its layer may be as registries keep it, in bytes.
    pub(crate) budget: u64,
}

impl Description {
    /// The one of this checkout.
    pub(crate) fn read() -> Result<Self> {
        serde_json::from_str(include_str!("../../../nix/images.json")).context("nix/images.json")
    }

    /// What the manifests call the image of a program.
    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/migrations-{name}:{VERSION}", self.registry)
    }

    /// The configuration of a program's image, but for its layers; the same whenever and by whomever it is made.
    pub(super) fn configuration(&self, name: &str, program: &Program, architecture: Architecture) -> Value {
        let label = |key: &str, value: &str| (format!("org.opencontainers.image.{key}"), json!(value));
        let labels = serde_json::Map::from_iter([
            label("title", &file_name(name)),
            label("description", &program.description),
            label("version", VERSION),
            label("licenses", env!("CARGO_PKG_LICENSE")),
            label("source", env!("CARGO_PKG_REPOSITORY")),
            // Only a release knows of what commit it is.
            label("revision", "unknown"),
        ]);
        json!({
            "architecture": architecture.name(),
            "config": {
                "Entrypoint": [format!("/{}", file_name(name))],
                "Labels": labels,
                "User": self.user,
            },
            "created": "1970-01-01T00:00:01Z",
            "os": "linux",
        })
    }
}

/// The program's file, in its image and where it is compiled.
pub(crate) fn file_name(name: &str) -> String {
    format!("migrations-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_says_where_it_comes_from_and_has_a_user_that_is_not_root() {
        let description = Description::read().unwrap();
        assert!(description.programs.keys().eq(["controller", "waiter", "webhook"]));
        for (name, program) in &description.programs {
            let image = description.configuration(name, program, Architecture::Arm64);
            assert_eq!(image["architecture"], "arm64");
            let image = &image["config"];
            assert_eq!(image["Entrypoint"], json!([format!("/migrations-{name}")]));
            for key in ["title", "description", "version", "licenses", "source", "revision"] {
                let label = image["Labels"][format!("org.opencontainers.image.{key}")].as_str();
                assert!(label.is_some_and(|label| !label.is_empty()), "{name}: {key}");
            }
            let user = image["User"].as_str().unwrap().split(':').map(str::parse::<u32>);
            assert!(user.eq([Ok(65_532), Ok(65_532)]), "{name}: {}", image["User"]);
        }
    }
}
