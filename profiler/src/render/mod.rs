//! Renderers: a [`Profile`] to bytes. They know no addresses to resolve, no /proc and no kernel maps.
//!
//! A format is one file here and one line in [`FORMATS`]. Everything shown comes out of the profile, with its losses;
//! scaling of units happens here and nowhere before.

pub mod diff;
#[cfg(test)]
pub(crate) mod fixture;
pub mod folded;
#[cfg(test)]
mod golden;
mod histogram;
pub mod java;
pub mod json;
pub mod net;
pub mod output;
pub mod packets;
pub mod pprof;
pub mod sched;
pub mod stat;
pub mod svg;
pub mod syscalls;
mod tally;
pub mod text;
pub mod units;

use std::{
    io::{self, Write},
    path::Path,
};

use crate::model::Profile;
pub use text::sections::{SECTIONS, Section};

/// Writes a profile in one format.
pub type WriteFn = fn(&Profile, &RenderOptions, &mut dyn Write) -> Result<(), RenderError>;

/// An output format.
#[derive(Debug)]
pub struct Format {
    /// Name, for `--format`.
    pub name: &'static str,
    /// How the names of such files end.
    pub extensions: &'static [&'static str],
    /// One line of help.
    pub summary: &'static str,
    /// Writes it.
    pub write: WriteFn,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// All output formats.
pub const FORMATS: &[Format] = &[
    Format {
        name: "pprof",
        extensions: &[".pb.gz"],
        summary: "recording, for `profiler report`, `go tool pprof`, speedscope ...",
        write: pprof::write,
    },
    Format {
        name: "folded",
        extensions: &[".folded"],
        summary: "one line per stack, for flamegraph tools",
        write: folded::write,
    },
    Format {
        name: "svg",
        extensions: &[".svg"],
        summary: "flamegraph with zoom and search, for a browser",
        write: svg::write,
    },
    Format {
        name: "json",
        extensions: &[".json"],
        summary: "one row per thread and function (docs/json.md)",
        write: json::write,
    },
    Format {
        name: "text",
        extensions: &[".txt"],
        summary: "report in sections by process, thread, module and symbol",
        write: text::write_report,
    },
    Format {
        name: "summary",
        extensions: &[],
        summary: "the top functions of each process on one screen",
        write: text::write_summary,
    },
];

/// The format of that name.
pub fn format_by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The format that a file's name asks for.
pub fn format_by_path(path: &Path) -> Option<&'static Format> {
    let name = path.file_name()?.as_encoded_bytes();
    let matches = |extension: &&str| name.len() > extension.len() && name.ends_with(extension.as_bytes());
    FORMATS.iter().find(|format| format.extensions.iter().any(matches))
}

/// What is shown, and how. `Default` is what a renderer shows when nothing was asked for.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Index of the sample type shown by formats that show one; `None`: the first ([`Self::value_of`]).
    pub value: Option<usize>,
    /// Stacks from the leaf (folded, svg).
    pub inverted: bool,
    /// Threads apart (folded, svg).
    pub per_thread: bool,
    /// Processes of one name, and their threads of one name, are one (text, json; folded and svg with `per_thread`).
    pub merge_by_name: bool,
    /// Frames say their kind: `_[k]` kernel, `_[i]` inlined, `_[j]` JIT, `_[0]` interpreted (folded).
    pub annotate: bool,
    /// Title (svg).
    pub title: Option<String>,
    /// Which part of the recording this is, in words; `None`: all of it.
    pub selection: Option<String>,
    /// Sections (text); empty: all.
    pub sections: Vec<&'static Section>,
    /// Lines below this share of the total, in percent, are counted but not shown (text).
    pub clip_percent: f64,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            value: None,
            inverted: false,
            per_thread: false,
            merge_by_name: false,
            annotate: true,
            title: None,
            selection: None,
            sections: Vec::new(),
            clip_percent: 0.0,
        }
    }
}

impl RenderOptions {
    /// The index of the sample type shown: the one asked for, or the first, which is what the first event is about.
    /// `None` if the profile has no sample types.
    pub fn value_of(&self, profile: &Profile) -> Option<usize> {
        let index = self.value.unwrap_or(0);
        (index < profile.sample_types.len()).then_some(index)
    }
}

/// Why a profile could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The sample type asked for is none of the profile's.
    #[error("the recording has no such sample type")]
    NoSampleType,
    /// The values are too large to be drawn.
    #[error("the values add up to more than {limit}")]
    Overflow {
        /// The largest sum.
        limit: u64,
    },
    /// All stacks together would be too large.
    #[error("the stacks need {bytes} bytes of names; select a part with --pid, --comm or --focus")]
    TooLarge {
        /// Size of the names of all stacks.
        bytes: usize,
    },
}

impl RenderError {
    /// Whether the reader of a pipe has seen enough, which is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Also clean: no control characters but line ends in any text format.
        #[test]
        fn any_profile_is_written_in_any_format(profile in fixture::profiles(), inverted: bool, per_thread: bool, merge_by_name: bool) {
            let options = RenderOptions { inverted, per_thread, merge_by_name, ..RenderOptions::default() };
            for format in FORMATS {
                let mut out = Vec::new();
                (format.write)(&profile, &options, &mut out).unwrap();
                if format.name != "pprof" {
                    let text = String::from_utf8(out).unwrap();
                    let is_clean = |c: char| c == '\n' || !c.is_control();
                    prop_assert!(text.chars().all(is_clean), "{}", format.name);
                }
            }
        }
    }

    #[test]
    fn the_extension_chooses_the_format() {
        let name = |path: &str| format_by_path(Path::new(path)).map(|format| format.name);
        assert_eq!(name("profile.pb.gz"), Some("pprof"));
        assert_eq!(name("/tmp/x.y.svg"), Some("svg"));
        assert_eq!(name("a.json"), Some("json"));
        assert_eq!(name("a.gz"), None);
        assert_eq!(name("dir.svg/a"), None);
        assert_eq!(name(".svg"), None);
        assert_eq!(name("-"), None);
    }

    #[test]
    fn the_first_is_shown_by_default() {
        let profile = fixture::mixed();
        let value = |value| RenderOptions { value, ..RenderOptions::default() }.value_of(&profile);
        assert_eq!(value(None), Some(0));
        assert_eq!(value(Some(1)), Some(1));
        assert_eq!(value(Some(2)), None);
        assert_eq!(RenderOptions::default().value_of(&Profile::default()), None);
    }
}
