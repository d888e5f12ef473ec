//! `profiler sched` and `profiler cpu`: resolve what the user asked for, account, show each interval and the whole run.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, builder::PossibleValuesParser};
use profiler_common::probe::sched::COUNTERS;

use super::{
    args::LogLevel,
    error::{Exit, Failure},
    explain,
    spans::{self, SpanArgs},
    target::Selection,
};
use crate::{
    model::sched::{Row, Span},
    perf::counters,
    render::sched::{View, write_json, write_text},
    session::sched::{AccountOptions, Accounting},
    target::{Choice, Target},
};

/// Arguments of `sched`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a target, all threads are accounted. Times add up: CPU, interrupts, waiting for a CPU and \
    blocked are the time that passed (docs/scheduler.md).\n\nExamples:\n  profiler sched -d 10                    all \
    threads for 10 s\n  profiler sched -p 4711 -i 1             a process and its children, every second\n  profiler \
    sched --sort run_queue_ns -- make    what a command's threads waited for a CPU"
)]
pub struct SchedArgs {
    /// Account all threads, also where a command is given (which then only sets the duration).
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Account these processes, with their threads and children.
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Leave out children of the processes given by -p or of the command.
    #[arg(long)]
    pub no_children: bool,

    /// Show only threads of this control group (v2) and of those below it.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Show processes, and in each its threads, with the most of this first.
    #[arg(long, value_name = "COLUMN", default_value = "cpu_ns", value_parser = columns())]
    pub sort: String,

    /// Read these performance counters at each switch, four at most; `none` for none (default: cycles and instructions
    /// where the machine counts them).
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', value_parser = counter)]
    pub counters: Vec<&'static str>,

    /// Threads to show as text.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rows: usize,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Start this command, stopped until everything is attached, and account it until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

/// What rows can be sorted by: columns, and counters as far as they are read.
fn columns() -> PossibleValuesParser {
    Row::COLUMNS
        .into_iter()
        .chain(counters::ALL.iter().map(|counter| counter.name))
        .collect::<Vec<_>>()
        .into()
}

/// The word for no counter.
const NO_COUNTERS: &str = "none";

/// A counter's name, or [`NO_COUNTERS`].
fn counter(name: &str) -> Result<&'static str, String> {
    let names = || counters::ALL.iter().map(|counter| counter.name);
    let found = names().chain([NO_COUNTERS]).find(|known| *known == name);
    found.ok_or_else(|| format!("there are {}, and `none`", names().collect::<Vec<_>>().join(", ")))
}

/// The counters that are asked for; `None`: those that are usual.
fn chosen(names: &[&'static str]) -> Result<Option<Vec<&'static str>>, Failure> {
    let (none, mut named): (Vec<_>, Vec<_>) = names.iter().partition(|name| **name == NO_COUNTERS);
    named.sort_unstable();
    named.dedup();
    if named.len() > COUNTERS || (!none.is_empty() && !named.is_empty()) {
        let problem = format!("--counters takes `none`, or at most {COUNTERS} events");
        return Err(Failure::new(Exit::Usage, problem));
    }
    Ok((!names.is_empty()).then_some(named))
}

/// Arguments of `cpu`.
#[derive(Args, Debug)]
pub struct CpuArgs {
    #[command(flatten)]
    pub span: SpanArgs,
}

/// Runs `sched`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
pub fn run_sched(args: &SchedArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let selection = Selection {
        all: args.all,
        pids: &args.pid,
        children: !args.no_children,
        cgroup: args.cgroup.as_deref(),
        comm: None,
        command: &args.command,
    };
    let mut target = selection.resolve()?;
    let counters = chosen(&args.counters)?;
    let options = AccountOptions { counters, ..args.span.options("sched", &target, log_level)? };
    let show = Show { view: View::Threads { rows: args.rows }, sort: Some(&args.sort), json: args.span.json };
    account(&options, &mut target, show, begun_ns)
}

/// Runs `cpu`; gives the process's exit code.
pub fn run_cpu(args: &CpuArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let mut target = Target::resolve(&Choice::All).map_err(|error| explain::target(&error))?;
    "all CPUs".clone_into(&mut target.words);
    let options = args.span.options("cpu", &target, log_level)?;
    account(&options, &mut target, Show { view: View::Cpus, sort: None, json: args.span.json }, begun_ns)
}

/// How a span is shown.
#[derive(Clone, Copy)]
struct Show<'a> {
    view: View,
    sort: Option<&'a str>,
    json: bool,
}

impl Show<'_> {
    /// Writes a span to stdout. `false`: nobody reads it any more.
    fn write(self, mut span: Span) -> Result<bool, Failure> {
        if let Some(column) = self.sort {
            span.accounts.sort(column);
        }
        spans::write(|out| {
            if self.json { write_json(&span, self.view, out) } else { write_text(&span, self.view, out) }
        })
    }
}

fn account(
    options: &AccountOptions,
    target: &mut Target,
    show: Show<'_>,
    begun_ns: u64,
) -> Result<u8, Failure> {
    spans::run(target, || Accounting::start(options, begun_ns), |span| show.write(span))
}
