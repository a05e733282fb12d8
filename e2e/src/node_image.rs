//! The image of a cluster node: the published one of the pinned kind where a registry answers, else one assembled here.

mod assemble;

use std::time::Duration;

use anyhow::Result;

pub(crate) use self::assemble::debian_base;
use crate::command;
use crate::engine::Engine;
use crate::progress::{note, step};

/// The default of the pinned kind.
const PUBLISHED: &str =
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";
const REGISTRY_ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// An image that a node can be made from, present in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeImage {
    /// Its name; nothing for the one that kind asks for by itself.
    pub(crate) reference: Option<String>,
    /// Whether it came from a registry: then kind's own network is used, and nothing keeps its packets on the machine.
    pub(crate) published: bool,
}

impl NodeImage {
    /// The image, if it is in the engine already or a registry has it. Where not, [`Self::assemble`] makes it.
    pub(crate) fn find(engine: &Engine) -> Result<Option<Self>> {
        let assembled = assemble::tag()?;
        if engine.has_image(PUBLISHED) {
            return Ok(Some(Self::published()));
        }
        if engine.has_image(&assembled) {
            return Ok(Some(Self { reference: Some(assembled), published: false }));
        }
        if !registry_answers(engine) {
            note("no registry answers: the node image will be assembled from packages");
            return Ok(None);
        }
        step(format!("pulling {PUBLISHED}"), || command::run(engine.docker().args(["pull", PUBLISHED])))?;
        Ok(Some(Self::published()))
    }

    /// The one that kind asks for by itself.
    pub(crate) fn of_kind() -> Self {
        Self { reference: None, published: true }
    }

    fn published() -> Self {
        Self { reference: Some(PUBLISHED.to_owned()), published: true }
    }

    /// Makes the image from packages and the pinned programs.
    pub(crate) fn assemble(engine: &Engine) -> Result<Self> {
        let reference = assemble::tag()?;
        assemble::assemble(engine, &reference)?;
        Ok(Self { reference: Some(reference), published: false })
    }
}

fn registry_answers(engine: &Engine) -> bool {
    let mut ask = engine.docker();
    ask.args(["manifest", "inspect", PUBLISHED]);
    step("asking the registry for the node image", || {
        Ok(command::run_within(REGISTRY_ANSWERS_WITHIN, &mut ask).is_ok())
    })
    .unwrap_or(false)
}
