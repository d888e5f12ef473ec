//! How a profile is shown: outputs, formats and what they show of it. Shared by the commands that show one.

use std::path::PathBuf;

use clap::Args;
use regex::Regex;

use crate::render::{
    FORMATS, Format, RenderOptions, SECTIONS, Section, format_by_name,
    output::{OutputError, OutputSet},
};

/// Arguments for it.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Where to write; the extension says the format, `-` is standard output. May be repeated
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Format of outputs whose name does not tell
    #[arg(long, value_parser = format, value_name = "FORMAT", conflicts_with_all = ["json", "summary"],
        help = format!("Format of outputs whose name does not tell (`-o -`): {}", names(FORMATS, |f| f.name)))]
    pub format: Option<&'static Format>,
    /// JSON (the same as --format json)
    #[arg(long)]
    pub json: bool,
    /// The summary that `record` shows (the same as --format summary)
    #[arg(long, conflicts_with = "json")]
    pub summary: bool,
    /// Sections of the text report
    #[arg(long, value_delimiter = ',', value_parser = section, value_name = "SECTION",
        help = format!("Sections of the text report: {}", names(SECTIONS, |s| s.name)))]
    pub section: Vec<&'static Section>,
    /// Leave out lines of the text report below this share of the total, in percent
    #[arg(long, value_parser = percent, value_name = "PERCENT", default_value = "0")]
    pub clip: f64,
    /// Take processes of one name, and their threads of one name, for one
    #[arg(long)]
    pub merge_by_name: bool,
    /// Stacks from the leaf: who calls the hot functions (folded, svg)
    #[arg(long)]
    pub inverted: bool,
    /// Threads apart (folded, svg)
    #[arg(long)]
    pub per_thread: bool,
    /// Title of the flamegraph
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
}

impl ShowArgs {
    /// The format that is asked for apart from names of files.
    pub fn format(&self) -> Option<&'static Format> {
        let named = |is_asked, name| if is_asked { format_by_name(name) } else { None };
        self.format.or_else(|| named(self.json, "json")).or_else(|| named(self.summary, "summary"))
    }

    /// The outputs, standard output if none was named; `usual`: its format if none was named.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn outputs(&self, usual: &'static Format) -> Result<OutputSet, OutputError> {
        let stdout = [PathBuf::from("-")];
        let paths = if self.output.is_empty() { &stdout[..] } else { &self.output };
        OutputSet::open(paths, self.format(), usual)
    }

    /// What is shown; which values and whose is the caller's to add.
    pub fn options(&self) -> RenderOptions {
        RenderOptions {
            inverted: self.inverted,
            per_thread: self.per_thread,
            merge_by_name: self.merge_by_name,
            title: self.title.clone(),
            sections: self.section.clone(),
            clip_percent: self.clip,
            ..RenderOptions::default()
        }
    }
}

/// Names with commas between.
pub fn names<'a, T, S: AsRef<str>>(items: &'a [T], name: impl Fn(&'a T) -> S) -> String {
    let names: Vec<_> = items.iter().map(name).collect();
    names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

fn format(name: &str) -> Result<&'static Format, String> {
    format_by_name(name).ok_or_else(|| format!("the formats are {}", names(FORMATS, |f| f.name)))
}

fn section(name: &str) -> Result<&'static Section, String> {
    Section::by_name(name).ok_or_else(|| format!("the sections are {}", names(SECTIONS, |s| s.name)))
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse().ok().filter(|p| (0.0..=100.0).contains(p));
    percent.ok_or_else(|| "a number from 0 to 100 is wanted".to_owned())
}

/// A regular expression, or what is wrong with it.
pub fn regex(text: &str) -> Result<Regex, String> {
    // The last line of the message is the cause; those before draw a pointer.
    let cause = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    Regex::new(text).map_err(cause)
}
