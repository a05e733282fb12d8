//! The application's images: the shop in four versions on one base, and its database.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::{self, Root};
use crate::cache::Inputs;
use crate::engine::Engine;
use crate::progress::{note, step};
use crate::{command, paths};

/// The versions of the shop, oldest first.
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];
const DATABASE: &str = "migrations-app-postgres:17";
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Builds the images; returns what the manifests call them.
pub(super) fn build(engine: &Engine) -> Result<Vec<String>> {
    let mut images = Vec::new();
    let published = published(engine)?;
    let base = if published { published_base(engine)? } else { debian_base(engine)? };
    for version in VERSIONS {
        let image = format!("migrations-app:{version}");
        docker_build(
            engine,
            "Dockerfile",
            &image,
            &["--target", version, "--build-arg", &format!("BASE={base}")],
        )?;
        images.push(image);
    }
    if published {
        docker_build(engine, "registry/postgres.Dockerfile", DATABASE, &[])?;
    } else {
        debian_database(engine)?;
    }
    images.push(DATABASE.to_owned());
    Ok(images)
}

/// Builds from a Dockerfile of `e2e/app`; the engine skips what it has already.
fn docker_build(engine: &Engine, dockerfile: &str, image: &str, options: &[&str]) -> Result<()> {
    let mut build = engine.docker();
    // Another builder, if someone has chosen one, would not see the images of this engine.
    build.env("BUILDX_BUILDER", "default");
    build.args(["build", "--quiet", "--tag", image, "--file"]).arg(file(dockerfile)).args(options);
    step(format!("building {image}"), || command::run(build.arg(file("."))))
}

/// Whether to start from the official images.
fn published(engine: &Engine) -> Result<bool> {
    if engine.has_image(&published_tag()?) {
        return Ok(true);
    }
    if engine.has_image(&debian_tag()?) {
        return Ok(false);
    }
    let dockerfile = std::fs::read_to_string(file("registry/python.Dockerfile"))?;
    let official = dockerfile.lines().find_map(|line| line.strip_prefix("FROM "));
    let published = official.is_some_and(|image| super::registry_has(engine, image));
    if !published {
        note("no registry answers: the application's images will be made from Debian packages");
    }
    Ok(published)
}

fn published_base(engine: &Engine) -> Result<String> {
    let tag = published_tag()?;
    if !engine.has_image(&tag) {
        docker_build(engine, "registry/python.Dockerfile", &tag, &[])?;
    }
    Ok(tag)
}

fn published_tag() -> Result<String> {
    let inputs =
        Inputs::default().file(&file("registry/python.Dockerfile"))?.file(&file("requirements.txt"))?;
    Ok(format!("migrations-app-base:published-{}", inputs.hash()))
}

fn debian_base(engine: &Engine) -> Result<String> {
    let tag = debian_tag()?;
    if !engine.has_image(&tag) {
        let requirements = file("requirements.txt");
        let root = python();
        let tar =
            root.tar(root.inputs(&requirements)?, |work| debian::python_packages(&requirements, work))?;
        let content = root.inputs(&requirements)?.hash();
        step("importing the application's base image", || {
            super::import(engine, &tar, &[&format!("ENV PATH={PATH}")], &content, &tag)
        })?;
    }
    Ok(tag)
}

fn debian_tag() -> Result<String> {
    Ok(format!("migrations-app-base:debian-{}", python().inputs(&file("requirements.txt"))?.hash()))
}

fn python() -> Root<'static> {
    Root {
        name: "app-python",
        packages: "base-files,base-passwd,ca-certificates,coreutils,dash,libc-bin,procps,python3",
        left_out: &["/usr/lib/python3*/test/*", "/usr/lib/python3*/pydoc_data/*", "/usr/share/perl*"],
        script: file("debian/python"),
    }
}

fn debian_database(engine: &Engine) -> Result<()> {
    let entrypoint = file("debian/postgres-entrypoint");
    let root = Root {
        name: "app-postgres",
        packages: "base-files,base-passwd,coreutils,dash,libc-bin,procps,postgresql-17",
        // The compiler of expressions and the scripts around the server are most of its size, and unused here.
        left_out: &[
            "/usr/lib/*/libLLVM*",
            "/usr/lib/*/libz3*",
            "/usr/lib/*/libperl*",
            "/usr/lib/*/perl*",
            "/usr/bin/perl*",
            "/usr/share/perl*",
            "/usr/lib/postgresql/*/lib/bitcode/*",
            "/usr/lib/postgresql/*/lib/llvmjit*",
            "/usr/share/postgresql/*/man/*",
        ],
        script: file("debian/postgres"),
    };
    let content = root.inputs(&entrypoint)?.hash();
    if super::is_current(engine, DATABASE, &content) {
        return Ok(());
    }
    let tar = root.tar(root.inputs(&entrypoint)?, |_| Ok(entrypoint))?;
    let changes = [
        &format!("ENV PATH=/usr/lib/postgresql/17/bin:{PATH}"),
        "ENV LANG=C.UTF-8",
        "USER 999:999",
        "EXPOSE 5432",
        r#"ENTRYPOINT ["/usr/local/bin/entrypoint"]"#,
    ];
    step(format!("importing {DATABASE}"), || super::import(engine, &tar, &changes, &content, DATABASE))
}

/// A file of `e2e/app`.
fn file(name: &str) -> PathBuf {
    paths::workspace().join("e2e/app").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_name_these_images() {
        let sample = |name: &str| {
            let file = paths::workspace().join("manifests/samples/django").join(name);
            std::fs::read_to_string(file).unwrap()
        };
        assert!(sample("postgres.yaml").contains(&format!("image: {DATABASE}\n")));
        for workload in ["web.yaml", "worker.yaml"] {
            let text = sample(workload);
            let images: Vec<_> =
                text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
            assert!(images.iter().all(|image| *image == "migrations-app:v1"), "{workload}: {images:?}");
        }
    }
}
