//! `profiler syscalls`: resolve what the user asked for, account, show each interval and the whole run.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    args::LogLevel,
    error::Failure,
    record::forced_fallbacks,
    spans::{self, SpanArgs},
    target::Selection,
};
use crate::{
    model::syscalls::{By, Row, Span},
    probe::syscalls::Depth,
    render::syscalls::{Show, write_json, write_text},
    session::syscalls::{SyscallAccounting, SyscallOptions},
};

/// Arguments of `syscalls`.
#[derive(Args, Debug)]
#[command(after_help = "Without a target, the calls of all threads are accounted. What each column means: \
    docs/syscalls.md.\n\nExamples:\n  profiler syscalls -d 10                 all processes for 10 s\n  profiler \
    syscalls -p 4711 -i 1          a process and its children, every second\n  profiler syscalls --by syscall --errors \
    -- make    the calls of a command, with their errors\n  profiler syscalls --count-only          only how many, at a third of \
    the cost")]
pub struct SyscallArgs {
    /// Account the calls of all threads, also where a command is given (which then only sets the duration).
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Account the calls of these processes, with their threads and children.
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Leave out children of the processes given by -p or of the command.
    #[arg(long)]
    pub no_children: bool,

    /// Account only calls of threads of this control group (v2) and of those below it.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// What a row is about.
    #[arg(long, value_enum, default_value_t = Rows::Process)]
    pub by: Rows,

    /// Show the rows with the most of this first [default: total_ns, or count]
    #[arg(long, value_name = "COLUMN", value_parser = Row::COLUMNS)]
    pub sort: Option<String>,

    /// Rows to show as text.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rows: usize,

    /// Show which errors there were, below each row (JSON has them always).
    #[arg(long, conflicts_with = "count_only")]
    pub errors: bool,

    /// Show how the latencies are distributed, below each row, and in JSON.
    #[arg(long, conflicts_with = "count_only")]
    pub histogram: bool,

    /// Only count calls: no times, no errors, a third of the cost.
    #[arg(long)]
    pub count_only: bool,

    /// Do nothing with calls, but run a program at each: the cost that counting cannot go below. For `cargo xtask bench`.
    #[arg(long, hide = true, conflicts_with = "count_only")]
    pub floor: bool,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Pairs of thread and system call that are kept apart at a time; the rest is in rows `[other]` [default: four for each
    /// thread that there is room for]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..=4_194_304))]
    pub accounts: Option<u32>,

    /// Do without a feature of the kernel, as on a kernel that lacks it: names of lines of `doctor`, or `all`. For tests.
    #[arg(long, value_name = "NAME", value_delimiter = ',', hide_short_help = true)]
    pub force_fallback: Vec<String>,

    /// Start this command, stopped until everything is attached, and account its calls until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

impl SyscallArgs {
    const fn depth(&self) -> Depth {
        match (self.floor, self.count_only) {
            (true, _) => Depth::Nothing,
            (false, true) => Depth::Counted,
            (false, false) => Depth::Timed,
        }
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    /// A system call of a process, its threads together
    Process,
    /// A system call of a thread
    Thread,
    /// A system call of all that are looked at
    Syscall,
}

impl From<Rows> for By {
    fn from(rows: Rows) -> Self {
        match rows {
            Rows::Process => Self::Process,
            Rows::Thread => Self::Thread,
            Rows::Syscall => Self::Syscall,
        }
    }
}

/// Runs `syscalls`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
pub fn run(args: &SyscallArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let force_fallback = forced_fallbacks(&args.force_fallback)?;
    let selection = Selection {
        all: args.all,
        pids: &args.pid,
        children: !args.no_children,
        cgroup: args.cgroup.as_deref(),
        comm: None,
        command: &args.command,
    };
    let mut target = selection.resolve()?;
    let options = SyscallOptions {
        account: args.span.options("syscalls", &target, log_level)?,
        by: args.by.into(),
        depth: args.depth(),
        histogram: args.histogram,
        accounts: args.accounts,
        force_fallback,
    };
    let by_default = if args.count_only { "count" } else { "total_ns" };
    let column = args.sort.as_deref().unwrap_or(by_default);
    let show = Show { rows: args.rows, errors: args.errors, histogram: args.histogram };
    let write = |mut span: Span| {
        span.sort(column);
        spans::write(|out| if args.span.json { write_json(&span, out) } else { write_text(&span, show, out) })
    };
    spans::run(&mut target, || SyscallAccounting::start(&options, begun_ns), write)
}
