//! `profiler stat`: resolve what the user asked for, account and sample it, show where the time went.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;
use profiler_common::sched::wait::WaitConfig;

use super::{
    args::{LogLevel, parse_seconds},
    error::Failure,
    event,
    record::forced_fallbacks,
    spans::{self, SpanArgs},
    target::Selection,
};
use crate::{
    model::{stat::Stat, syscalls::By},
    probe::{Chosen, Event, syscalls::Depth},
    render::stat::{write_json, write_text},
    session::{
        RecordOptions, UnwindMode,
        sched::AccountOptions,
        stat::{StatOptions, StatRun},
        syscalls::SyscallOptions,
    },
};

/// Kernel memory for unwind tables, MiB: what `record` has if nothing else is said.
const UNWIND_MEMORY: u64 = 64 << 20;

/// Arguments of `stat`.
#[derive(Args, Debug)]
#[command(
    after_help = "The time of all threads, added up, is 100 %: on a CPU, waiting for one, blocked by what; below each \
    part the functions and system calls with most of it (docs/stat.md). Without a target, all threads are \
    accounted.\n\nExamples:\n  profiler stat -- make             where the time of a command went\n  profiler stat -p \
    4711 -d 10      a process and its children, for 10 s\n  profiler stat -F 999 -- ls -lR    more samples, for short commands"
)]
pub struct StatArgs {
    /// Account all threads, also where a command is given (which then only sets the duration).
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Account these processes, with their threads and children.
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Leave out children of the processes given by -p or of the command.
    #[arg(long)]
    pub no_children: bool,

    /// Account only threads of this control group (v2) and of those below it.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Samples per second and CPU, which tell functions, and user mode from kernel mode [default: 99]
    #[arg(short = 'F', long, value_name = "HZ")]
    pub frequency: Option<u64>,

    /// Stop after this many seconds (default: at Ctrl-C or at the command's end).
    #[arg(short, long, value_name = "SECS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,

    /// Functions, and system calls, to show below each part as text.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rows: usize,

    /// Write JSON: one object on one line.
    #[arg(long)]
    pub json: bool,

    /// Measure the run time of the eBPF programs, which adds some 60 ns to each event.
    #[arg(long)]
    pub ebpf_cost: bool,

    /// Read the kernel's BTF from this file.
    #[arg(long, value_name = "FILE", hide = true)]
    pub btf: Option<PathBuf>,

    /// Do without a feature of the kernel, as on a kernel that lacks it: names of lines of `doctor`, or `all`. For tests.
    #[arg(long, value_name = "NAME", value_delimiter = ',', hide_short_help = true)]
    pub force_fallback: Vec<String>,

    /// Start this command, stopped until everything is attached, and account it until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

/// Runs `stat`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
///
/// # Errors
/// What is not possible, or failed.
pub fn run(args: &StatArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let frequency_hz = event::frequency(args.frequency)?;
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
    let span = SpanArgs {
        interval: None,
        duration: args.duration,
        json: args.json,
        ebpf_cost: args.ebpf_cost,
        btf: args.btf.clone(),
    };
    let account = span.options("stat", &target, log_level)?;
    let options = StatOptions {
        samples: samples(&account, frequency_hz, &force_fallback),
        accounts: SyscallOptions {
            account,
            by: By::Syscall,
            depth: Depth::Timed,
            histogram: false,
            accounts: None,
            force_fallback,
        },
    };
    let show = |stat: Stat| {
        spans::write(|out| if args.json { write_json(&stat, out) } else { write_text(&stat, args.rows, out) })
    };
    spans::run(&mut target, || StatRun::start(&options, begun_ns), show)
}

/// What is sampled of the same target: where it runs, and what it is blocked by.
pub(super) fn samples(
    account: &AccountOptions,
    frequency_hz: u64,
    force_fallback: &[crate::host::features::Feature],
) -> RecordOptions {
    RecordOptions {
        events: vec![Chosen::whole(Event::Cpu), Chosen::whole(Event::OffCpu)],
        frequency_hz,
        sampler: None,
        // The accounts end it.
        duration: None,
        filter: account.filter,
        targets: account.targets.clone(),
        target_words: account.target_words.clone(),
        offsets: account.offsets,
        btf: account.btf.clone(),
        force_fallback: force_fallback.to_vec(),
        waits: Some((WaitConfig { blocked: 1, ..WaitConfig::default() }, account.sched_offsets)),
        net: None,
        call_stacks: None,
        small: false,
        idle: false,
        unwind: UnwindMode::Auto,
        unwind_memory: UNWIND_MEMORY,
        allow_attach: false,
        ebpf_cost: account.ebpf_cost,
        log: account.log,
        command_line: account.command_line.clone(),
        notes: Vec::new(),
    }
}
