//! The machines that the images are for.

use std::env::consts::ARCH;

use anyhow::{Context as _, Result};

/// An architecture that has images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

impl Architecture {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// The one of this machine.
    pub(crate) fn own() -> Result<Self> {
        let own = Self::ALL.into_iter().find(|architecture| architecture.processor() == ARCH);
        own.with_context(|| format!("there are no images for {ARCH}"))
    }

    /// What images call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What compilers and emulators call it.
    pub(super) fn processor(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// What static programs for it are compiled for.
    pub(crate) fn target(self) -> String {
        format!("{}-unknown-linux-musl", self.processor())
    }
}
