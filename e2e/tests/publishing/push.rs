//! `push` and `tag`: what CI does with the images of the default branch.

use serde_json::{Value, json};

use crate::PROGRAMS;
use crate::registry::Registry;
use crate::script::{run, script};

#[test]
fn images_that_are_pushed_again_have_the_same_digests() {
    let registry = Registry::start();
    let first = registry.push("sha-1", "one");
    assert_eq!(first, registry.indexes("sha-1"));
    assert_eq!(registry.push("sha-1", "one"), first);
    assert_eq!(registry.push("sha-2", "one"), first);
    assert_ne!(registry.push("sha-3", "two"), first);
}

#[test]
fn an_index_has_one_image_for_each_of_two_architectures() {
    let registry = Registry::start();
    for (index, program) in registry.push("sha-1", "one").iter().zip(PROGRAMS) {
        // Every manifest, configuration and layer is there, and is what its digest says.
        assert_eq!(Registry::crane(&["validate", "--remote", index]), [format!("PASS: {index}")]);

        let manifest: Value = serde_json::from_str(&Registry::crane(&["manifest", index]).concat()).unwrap();
        assert_eq!(manifest["schemaVersion"], 2);
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.index.v1+json");
        let image = registry.image(program);
        let expected = ["amd64", "arm64"].map(|architecture| {
            let digest = Registry::crane(&["digest", &format!("{image}:sha-1-{architecture}")]);
            (json!({ "architecture": architecture, "os": "linux" }), json!(digest[0]))
        });
        let listed = manifest["manifests"].as_array().unwrap();
        let listed: Vec<_> =
            listed.iter().map(|one| (one["platform"].clone(), one["digest"].clone())).collect();
        assert_eq!(listed, expected);
    }
}

/// As the budgets of `nix/images.json` are measured.
#[test]
fn layers_are_as_small_as_gzip_makes_them() {
    let registry = Registry::start();
    registry.push("sha-1", "one");
    for program in PROGRAMS {
        let image = format!("{}:sha-1-amd64", registry.image(program));
        let manifest: Value = serde_json::from_str(&Registry::crane(&["manifest", &image]).concat()).unwrap();
        let layer = registry.content(manifest["layers"][0]["digest"].as_str().unwrap());
        // RFC 1952: what was compressed slowest says 2 there, fastest 4.
        assert_eq!((&layer[..2], layer[8]), (&[0x1f, 0x8b][..], 2));
    }
}

#[test]
fn an_image_of_another_architecture_is_in_no_index() {
    let registry = Registry::start();
    let amd64 = registry.archives("amd64", "one");
    let mislabelled = amd64.replacen("amd64=", "arm64=", 1);
    let error = run(script("push").args([&registry.owner(), "sha-1", &amd64, &mislabelled])).error();
    assert!(error.contains("controller.tar isn't an image for arm64"), "{error}");
    assert_eq!(Registry::crane(&["ls", &registry.image("controller")]), ["sha-1-amd64", "sha-1-arm64"]);
}

#[test]
fn the_branchs_name_goes_on_to_the_next_commit() {
    let registry = Registry::start();
    for (tag, content) in [("sha-1", "one"), ("sha-2", "two")] {
        let indexes = registry.push(tag, content);
        run(script("tag").arg("main").args(&indexes)).lines();
        assert_eq!(registry.indexes("main"), indexes);
    }
}
