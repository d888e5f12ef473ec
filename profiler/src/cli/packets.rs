//! `profiler packets`: count what the host's network does and drops, show each interval and the whole run.

use std::ffi::OsString;

use clap::Args;

use super::{
    args::LogLevel,
    error::Failure,
    spans::{self, SpanArgs},
    target::Selection,
};
use crate::{
    model::packets::{InterfaceRow, Span},
    render::packets::{Show, write_json, write_text},
    session::packets::{PacketAccounting, PacketOptions},
};

/// Arguments of `packets`.
#[derive(Args, Debug)]
#[command(
    after_help = "What each column means: docs/packets.md.\n\nExamples:\n  profiler packets -i 1               every \
    second: drops, interfaces, soft interrupts\n  profiler packets --histogram -d 10   how long packets wait in queues\n  \
    profiler packets -- iperf3 -c host   while a command runs"
)]
pub struct PacketArgs {
    /// Show the interfaces with the most of this first.
    #[arg(long, value_name = "COLUMN", default_value = "bytes", value_parser = InterfaceRow::COLUMNS)]
    pub sort: String,

    /// Rows of each table to show as text.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,

    /// Show how the times in queues are distributed, below each interface, and in JSON.
    #[arg(long)]
    pub histogram: bool,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Start this command, stopped until everything is attached, and count until it ends. It only sets the duration: what
    /// is counted is the host's.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs `packets`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
pub fn run(args: &PacketArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let selection =
        Selection { all: true, pids: &[], children: false, cgroup: None, comm: None, command: &args.command };
    let mut target = selection.resolve()?;
    target.words = target.words.replacen("all processes", "the host's network", 1);
    let options = PacketOptions {
        account: args.span.options("packets", &target, log_level)?,
        histogram: args.histogram,
    };
    let show = Show { rows: args.rows, histogram: args.histogram };
    let write = |mut span: Span| {
        span.sort(&args.sort);
        spans::write(|out| if args.span.json { write_json(&span, out) } else { write_text(&span, show, out) })
    };
    spans::run(&mut target, || PacketAccounting::start(&options, begun_ns), write)
}
