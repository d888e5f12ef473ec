//! Renderers: a [`Profile`] to bytes. They know no addresses to resolve, no /proc and no kernel maps.
//!
//! A format is one file here and one line in [`FORMATS`].

#[cfg(test)]
mod fixture;
pub mod pprof;
pub mod units;

use std::io::{self, Write};

use crate::model::Profile;

/// What is shown, and how.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    pub x: u8,
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
