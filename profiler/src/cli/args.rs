//! The command line: one definition drives parsing, `--help` and the man page.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    ctl::CtlArgs,
    daemon::DaemonArgs,
    doctor,
    java::JavaArgs,
    jvm::JvmArgs,
    list::ListArgs,
    net::NetArgs,
    packets::PacketArgs,
    query::QueryArgs,
    report::ReportArgs,
    sched::{CpuArgs, SchedArgs},
    stat::StatArgs,
    syscalls::SyscallArgs,
    unwind_table::UnwindTableArgs,
};
use crate::probe::PROBES;

/// Explains where the time of a Linux host and of its processes goes, with eBPF: nothing is loaded into the target,
/// nothing is restarted.
#[derive(Debug, Parser)]
#[command(name = "profiler", version, max_term_width = 110, subcommand_required = true)]
pub struct Cli {
    /// What the profiler says about its own work, on stderr. From `debug` on, the kernel side's diagnostics too.
    #[arg(long, global = true, value_enum, default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,

    #[command(subcommand)]
    pub command: Command,
}

/// Verbosity of diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// Warnings too.
    Warn,
    /// What is going on.
    Info,
    /// Details, the eBPF programs' included.
    Debug,
}

impl LogLevel {
    /// As the `log` crate names it.
    pub const fn filter(self) -> log::LevelFilter {
        match self {
            Self::Error => log::LevelFilter::Error,
            Self::Warn => log::LevelFilter::Warn,
            Self::Info => log::LevelFilter::Info,
            Self::Debug => log::LevelFilter::Debug,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record a profile of the whole machine, of processes, or of a command.
    Record(RecordArgs),
    /// Show a recording as text, flamegraph, folded stacks or JSON.
    Report(ReportArgs),
    /// Show what the daemon has kept, of any range of time, or what is different between two.
    Query(QueryArgs),
    /// Show on one screen where the time of a command, of processes or of the machine went: it adds up to 100 %.
    Stat(StatArgs),
    /// Account where the time of threads goes: on the CPU, waiting for one, blocked and by what. Exact, not sampled.
    Sched(SchedArgs),
    /// Show what each CPU does, how long threads wait for one, and how long they stay on it.
    Cpu(CpuArgs),
    /// Account system calls: how often, how long, on the CPU or blocked, with what errors. Exact, not sampled.
    Syscalls(SyscallArgs),
    /// Account sockets: who talks to whom, how much, how fast, and what goes wrong. Exact, not sampled.
    Net(NetArgs),
    /// Show what the host's network does: packets dropped and why, traffic and queues by interface, time in interrupts.
    Packets(PacketArgs),
    /// Look at a JVM: threads and what they wait for, collections and safepoints, methods, monitors. Nothing is loaded into it.
    Java(JavaArgs),
    /// Record all processes all the time, at little cost: history on disk, metrics, profiles on demand.
    Daemon(DaemonArgs),
    /// Tell a running daemon what to do: start, stop, flush, reset, status.
    Ctl(CtlArgs),
    /// List what can be recorded: events, and the tracepoints of this kernel.
    List(ListArgs),
    /// Tell what works on this machine and, if something does not, why and what mends it.
    Doctor(doctor::Options),
    /// Show the code of a running JVM by name, read from outside as a recording does.
    #[command(hide = true)]
    Jvm(JvmArgs),
    /// Make the unwind tables of files as a recording does, and tell what is in them and what it took.
    #[command(hide = true)]
    UnwindTable(UnwindTableArgs),
    /// Print a table of the documentation from the code that it describes.
    #[command(hide = true)]
    Generate {
        /// Which table.
        #[arg(value_enum)]
        table: super::generate::Table,
    },
}

/// Arguments of `record`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without a target, all processes are recorded. Without -o, the recording goes to profile.pb.gz and \
    a summary to stdout.\n\nExamples:\n  profiler record -d 10                      the whole machine for 10 s\n  \
    profiler record -o flame.svg -- make -j4   a command, as a flamegraph\n  profiler record -p 4711 -F 999 -d 30 \
    -o -        a process and its children, text on stdout\n  profiler record -p 4711 -e java:gc,java:safepoint -d 60    how \
    long a JVM stops its program, and how often"
)]
pub struct RecordArgs {
    /// Samples per second and CPU, for events that a timer makes [default: 99]
    #[arg(short = 'F', long, value_name = "HZ")]
    pub frequency: Option<u64>,

    /// Stop after this many seconds (default: at Ctrl-C or at the command's end).
    #[arg(short, long, value_name = "SECS", value_parser = parse_seconds)]
    pub duration: Option<std::time::Duration>,

    /// Record all processes, also where a command is given (which then only sets the duration).
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Record these processes, with their threads and children.
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Leave out children of the processes given by -p or of the command.
    #[arg(long)]
    pub no_children: bool,

    /// Record only tasks of this control group (v2) and of those below it.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Record only threads of exactly this name (`comm`, at most 15 bytes).
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,

    /// What to record.
    #[arg(short, long, value_name = "EVENT", default_value = "cpu", help = event_help())]
    pub event: Vec<String>,

    /// Count shorter times that a task is blocked (event `offcpu`) without their stacks: `1ms`, `200us`, seconds.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub min_block: Option<std::time::Duration>,

    /// Show who woke a blocked task (event `offcpu`): the waker's stack stands on the blocked one's.
    #[arg(long)]
    pub wakers: bool,

    /// Record only samples that hit kernel mode.
    #[arg(long, visible_alias = "kernel", conflicts_with = "user_only")]
    pub kernel_only: bool,

    /// Record only samples that hit user mode.
    #[arg(long)]
    pub user_only: bool,

    /// Show threads apart in the summary and in folded and SVG output (recordings always keep them).
    #[arg(long)]
    pub per_thread: bool,

    /// Also record samples of idle CPUs, as process `[idle]`.
    #[arg(long)]
    pub idle: bool,

    /// What makes the samples of `cpu`: hardware cycles where there is a counter, else the cpu-clock (auto), or one of the
    /// two.
    #[arg(long, value_enum, default_value_t = Sampler::Auto)]
    pub sampler: Sampler,

    /// How user stacks are walked: by unwind tables where there are some and else by frame pointers (auto), only by
    /// frame pointers, or only where unwind tables can be used.
    #[arg(long, value_enum, default_value_t = Unwind::Auto)]
    pub unwind: Unwind,

    /// Kernel memory for unwind tables, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..=4096))]
    pub unwind_memory: u64,

    /// Have a JVM whose tables are not known write the names of its code, when the recording ends: runs code in the JVM, by its
    /// attach socket (docs/jvm.md). Never done without this option.
    #[arg(long)]
    pub allow_attach: bool,

    /// Write to this file, repeatable. The extension tells the format; `-` is stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,

    /// Format of outputs whose name does not tell (`-o -`).
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,

    /// Read the kernel's BTF from this file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub btf: Option<PathBuf>,

    /// Do without a feature of the kernel, as on a kernel that lacks it: names of lines of `doctor`, or `all`. For tests.
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub force_fallback: Vec<String>,

    /// Start this command, stopped until the probes are attached, and record it until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

/// What makes samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sampler {
    /// Hardware cycles where there is a counter, else the cpu-clock
    Auto,
    /// The CPU's cycle counter: no samples are missing where interrupts are off; the rate is approximate
    Cycles,
    /// A timer of the kernel: at an exact rate, on any machine
    CpuClock,
}

/// How user stacks are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unwind {
    /// By unwind tables, code without them by frame pointers
    Auto,
    /// By frame pointers
    Fp,
    /// By unwind tables; an error where that cannot be done
    EhFrame,
}

fn event_help() -> String {
    let events: Vec<String> =
        PROBES.iter().map(|probe| format!("{} ({})", probe.name, probe.summary)).collect();
    format!("What to record: {}", events.join(", "))
}

/// A number and a unit; without one, seconds.
fn parse_time(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        unit => return Err(format!("`{unit}` is none of ns, us, ms, s")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{text}` is not a time"))?;
    // An hour: a longer limit leaves nothing.
    if !(0.0..=3600.0).contains(&(number * scale)) {
        return Err("must be between 0 and 3600 seconds".to_owned());
    }
    Ok(std::time::Duration::from_secs_f64(number * scale))
}

/// A number of seconds, with a fraction.
pub fn parse_seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    // A year: beyond it the number is a mistake.
    if !(0.001..=366.0 * 86400.0).contains(&seconds) {
        return Err("must be between 0.001 and 31622400 seconds".to_owned());
    }
    Ok(std::time::Duration::from_secs_f64(seconds))
}
