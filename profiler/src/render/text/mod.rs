//! Text for people: a summary of one screen, and the full report in sections after the manner of tprof.

mod header;
pub mod sections;
mod summary;
mod trailer;
mod tree;

use std::io::{BufWriter, Write};

use super::{RenderError, RenderOptions, tally::Tally};
use crate::model::Profile;

/// Writes header, sections and trailer.
///
/// # Errors
/// Those of writing or of the options.
pub fn write_report(
    profile: &Profile,
    options: &RenderOptions,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    let tally = Tally::new(profile, options)?;
    let mut out = BufWriter::new(out);
    header::write(&tally, options, &mut out)?;
    sections::write(&tally, options, &mut out)?;
    trailer::write(&tally, options, &mut out)?;
    Ok(out.flush()?)
}

/// Writes the top functions of each process, and the trailer.
///
/// # Errors
/// Those of writing or of the options.
pub fn write_summary(
    profile: &Profile,
    options: &RenderOptions,
    out: &mut dyn Write,
) -> Result<(), RenderError> {
    let tally = Tally::new(profile, options)?;
    let mut out = BufWriter::new(out);
    summary::write(&tally, options, &mut out)?;
    trailer::write(&tally, options, &mut out)?;
    Ok(out.flush()?)
}

/// A name of at most `width` characters, the rest as `...`.
pub fn cut(name: &str, width: usize) -> String {
    match name.char_indices().nth(width) {
        None => name.to_owned(),
        Some(_) => name.chars().take(width.saturating_sub(3)).chain("...".chars()).collect(),
    }
}
