//! `profiler sched` and `profiler cpu`: resolve what the user asked for, account, show each interval and the whole run.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, builder::PossibleValuesParser};
use profiler_common::probe::sched::COUNTERS;

use super::{
    args::{LogLevel, parse_seconds},
    error::{Exit, Failure},
    explain,
    record::{abort_on_second_signal, command_end, end_command, stop_signal},
    target::Selection,
};
use crate::{
    host::btf,
    model::{
        name,
        sched::{Row, Span},
    },
    perf::counters,
    render::{
        RenderError,
        sched::{View, write_json, write_text},
    },
    session::{
        Stop,
        sched::{AccountOptions, Accounting},
    },
    target::{
        Choice, Target,
        command::{RunningCommand, shell_exit_code},
    },
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

/// When, and how it is shown.
#[derive(Args, Debug)]
pub struct SpanArgs {
    /// Show what happened every so many seconds, and the whole run at the end.
    #[arg(short, long, value_name = "SECS", value_parser = parse_seconds)]
    pub interval: Option<Duration>,

    /// Stop after this many seconds (default: at Ctrl-C or at the command's end).
    #[arg(short, long, value_name = "SECS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,

    /// Write JSON: one object on one line for each interval and for the whole run.
    #[arg(long)]
    pub json: bool,

    /// Measure the run time of the eBPF programs, which adds some 60 ns to each event.
    #[arg(long)]
    pub ebpf_cost: bool,

    /// Read the kernel's BTF from this file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub btf: Option<PathBuf>,
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
    let options = AccountOptions { counters, ..account_options(&args.span, "sched", &target, log_level)? };
    let show = Show { view: View::Threads { rows: args.rows }, sort: Some(&args.sort), json: args.span.json };
    account(&options, &mut target, show, begun_ns)
}

/// Runs `cpu`; gives the process's exit code.
pub fn run_cpu(args: &CpuArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let mut target = Target::resolve(&Choice::All).map_err(|error| explain::target(&error))?;
    "all CPUs".clone_into(&mut target.words);
    let options = account_options(&args.span, "cpu", &target, log_level)?;
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
        let mut out = io::BufWriter::new(io::stdout().lock());
        let written = if self.json {
            write_json(&span, self.view, &mut out)
        } else {
            write_text(&span, self.view, &mut out)
        };
        match written.and_then(|()| Ok(out.flush()?)) {
            Ok(()) => Ok(true),
            Err(RenderError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(Exit::Failure, format!("stdout: {error}"))),
        }
    }
}

/// Why the loop of intervals ends before its time.
enum Halt {
    /// Nobody reads what is written.
    Unread,
    /// Something failed.
    Failed(Failure),
}

impl From<crate::session::SessionError> for Halt {
    fn from(error: crate::session::SessionError) -> Self {
        Self::Failed(explain::session(&error))
    }
}

fn account(
    options: &AccountOptions,
    target: &mut Target,
    show: Show<'_>,
    begun_ns: u64,
) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot start the event loop: {error}")))?;
    let (span, stop, command) = runtime.block_on(collect(options, target, show, begun_ns))?;
    let status = command.map_or(Ok(None), |command| end_command(command, stop));
    if let Some(span) = span {
        show.write(span)?;
    }
    if stop == Stop::TargetsGone {
        _ = writeln!(io::stderr(), "profiler: all target processes have ended");
    }
    Ok(status?.map_or(Exit::Success.code(), shell_exit_code))
}

async fn collect(
    options: &AccountOptions,
    target: &mut Target,
    show: Show<'_>,
    begun_ns: u64,
) -> Result<(Option<Span>, Stop, Option<RunningCommand>), Failure> {
    // Handlers before anything is attached: from here on Ctrl-C ends it and loses nothing.
    let ended_by_signal = stop_signal()?;
    let mut accounting = Accounting::start(options, begun_ns).map_err(|error| explain::session(&error))?;
    accounting.add_targets(&target.new_descendants()).map_err(|error| explain::session(&error))?;
    let command = match target.command.take() {
        Some(stopped) => Some(stopped.release().map_err(|error| {
            let exit = if error.exit_code() == 127 { Exit::CommandNotFound } else { Exit::CannotExecute };
            Failure::new(exit, error)
        })?),
        None => None,
    };
    let ended = async {
        tokio::select! {
            () = ended_by_signal => Stop::Signal,
            () = command_end(command.as_ref()) => Stop::CommandEnded,
        }
    };
    let each = |span| match show.write(span) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Halt::Unread),
        Err(failure) => Err(Halt::Failed(failure)),
    };
    let (stop, is_read) = match accounting.run(ended, each).await {
        Ok(stop) => (stop, true),
        Err(Halt::Unread) => (Stop::Signal, false),
        Err(Halt::Failed(failure)) => return Err(failure),
    };
    abort_on_second_signal();
    let span = accounting.finish().map_err(|error| explain::session(&error))?;
    Ok((is_read.then_some(span), stop, command))
}

fn account_options(
    args: &SpanArgs,
    event: &'static str,
    target: &Target,
    log_level: LogLevel,
) -> Result<AccountOptions, Failure> {
    let path = args.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX));
    let unsupported = |error| {
        Failure::new(Exit::Unsupported, format!("threads cannot be accounted: {error}"))
            .mend("see `profiler doctor`, line `btf`")
    };
    Ok(AccountOptions {
        event,
        duration: args.duration,
        interval: args.interval,
        filter: target.filter,
        targets: target.pids.clone(),
        target_words: target.words.clone(),
        offsets: btf::task_offsets(path).map_err(unsupported)?,
        sched_offsets: btf::sched_offsets(path).map_err(unsupported)?,
        btf: path.to_owned(),
        counters: Some(Vec::new()),
        ebpf_cost: args.ebpf_cost,
        log: log_level >= LogLevel::Debug,
        command_line: std::env::args_os().map(|arg| name::clean(arg.as_encoded_bytes())).collect(),
        notes: Vec::new(),
    })
}
