//! Tables of the documentation, printed from the code they describe, so that `cargo xtask tidy` can compare them.

use std::io::{self, Write as _};

use clap::ValueEnum;
use profiler_common::loss::Loss;

use super::error::{Exit, Failure, to_stdout};
use crate::{
    daemon::config,
    export,
    host::features::{FEATURES, FeatureSpec},
    model::Reason,
    probe::PROBES,
    render::FORMATS,
};

/// A generated table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Probes, their sample types and hooks.
    Probes,
    /// Output formats.
    Formats,
    /// Exit codes.
    ExitCodes,
    /// Kernel-side loss counters.
    Losses,
    /// Reasons of unresolved frames.
    Reasons,
    /// Kernel features and their fallbacks.
    Features,
    /// The daemon's settings.
    Settings,
    /// Metrics of windows.
    Metrics,
}

/// Prints a table as Markdown.
pub fn run(table: Table) -> Result<(), Failure> {
    let text = match table {
        Table::Probes => probes(),
        Table::Formats => rows(
            "| format | file names | what it is |\n|---|---|---|",
            FORMATS.iter().map(|f| {
                let names: Vec<String> = f.extensions.iter().map(|e| format!("`{e}`")).collect();
                format!("| `{}` | {} | {} |", f.name, names.join(", "), f.summary)
            }),
        ),
        Table::Features => rows(
            "| line | feature | Linux | used for | fallback |\n|---|---|---|---|---|",
            FEATURES.iter().map(|f| {
                let FeatureSpec { name, what, since, commit, used_for, instead, .. } = f;
                format!("| `{name}` | {what} | {since} ({commit}) | {used_for} | {instead} |")
            }),
        ),
        Table::ExitCodes => rows(
            "| code | meaning |\n|---|---|",
            Exit::ALL.iter().map(|exit| format!("| {} | {} |", exit.code(), exit.meaning())),
        ),
        Table::Losses => {
            rows("| counter |\n|---|", Loss::ALL.iter().map(|loss| format!("| `{}` |", loss.name())))
        }
        Table::Settings => config::table(),
        Table::Metrics => export::metrics_table(),
        Table::Reasons => rows(
            "| key | shown as |\n|---|---|",
            Reason::ALL.iter().map(|reason| format!("| `{}` | `[{}]` |", reason.key(), reason.words())),
        ),
    };
    to_stdout(io::stdout().write_all(text.as_bytes()))
}

fn probes() -> String {
    rows(
        "| event | answers | sample types | attached to | kernel |\n|---|---|---|---|---|",
        PROBES.iter().map(|p| {
            let types: Vec<String> =
                p.sample_types.iter().map(|t| format!("`{}` ({})", t.name, t.unit.name())).collect();
            let (major, minor) = p.minimum_kernel;
            let hooks = p.hooks.join(", ");
            format!("| `{}` | {} | {} | {hooks} | {major}.{minor} |", p.name, p.summary, types.join(", "))
        }),
    )
}

fn rows(head: &str, rows: impl Iterator<Item = String>) -> String {
    let mut text = format!("{head}\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}
