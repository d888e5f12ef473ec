//! `profiler record`: resolve what the user asked for, run the session, write the outputs, pass the command's status on.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use profiler_common::{
    filter::{MODE_KERNEL, MODE_USER},
    task::TaskOffsets,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
};

use super::{
    args::{LogLevel, RecordArgs, Sampler, Unwind},
    error::{Exit, Failure},
    event, explain, kernel_facts,
    target::Selection,
};
use crate::{
    host::{
        btf, cpus,
        features::{self, FEATURES, Feature},
    },
    model::{Unit, name},
    perf::sampler::Clock,
    probe::Chosen,
    render::{
        FORMATS, Format, RenderOptions, format_by_name,
        output::{OutputSet, Written},
        text,
    },
    session::{Outcome, Progress, RecordOptions, Recording, SocketFacts, Stop, UnwindMode},
    target::{
        Target,
        command::{RunningCommand, shell_exit_code},
    },
};

/// Where a recording goes if no output is named.
const DEFAULT_OUTPUT: &str = "profile.pb.gz";

/// How long a command may take to end after SIGTERM, before it is left alone.
const TERMINATE_GRACE: Duration = Duration::from_secs(2);

/// Runs the command; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
pub fn run(args: &RecordArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let events = event::resolve(args)?;
    let force_fallback = forced_fallbacks(&args.force_fallback)?;
    // Outputs first: an hour's recording must not end in "permission denied".
    let outputs = open_outputs(args)?;
    let mut target = resolve_target(args)?;
    let options = record_options(args, events, log_level, &target, force_fallback)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot start the event loop: {error}")))?;
    let (outcome, command) = runtime.block_on(record(&options, &mut target, begun_ns))?;
    let status = command.map_or(Ok(None), |command| end_command(command, outcome.stop));
    let written = outputs.write(&outcome.profile, &render_options(args), &mut io::stdout().lock());
    report_end(args, &outcome, &written);
    if let Some(error) = written.errors.first() {
        return Err(Failure::new(Exit::Failure, error));
    }
    let status = status?;
    Ok(status.map_or(Exit::Success.code(), shell_exit_code))
}

async fn record(
    options: &RecordOptions,
    target: &mut Target,
    begun_ns: u64,
) -> Result<(Outcome, Option<RunningCommand>), Failure> {
    // Handlers before anything is attached: from here on Ctrl-C ends the recording and loses nothing.
    let ended_by_signal = stop_signal()?;
    let mut recording =
        Recording::start(options, &cpus::online(), begun_ns).map_err(|e| explain::session(&e))?;
    recording.add_targets(&target.new_descendants()).map_err(|e| explain::session(&e))?;
    let command = match target.command.take() {
        Some(stopped) => Some(stopped.release().map_err(|error| {
            let exit = if error.exit_code() == 127 { Exit::CommandNotFound } else { Exit::CannotExecute };
            Failure::new(exit, error)
        })?),
        None => None,
    };
    let filter = options.filter;
    let (pids, followed) = (target.pids.clone(), filter.by_process != 0);
    recording.scan_existing(|pid| !followed || pids.contains(&pid)).map_err(|e| explain::session(&e))?;
    let ended = async {
        tokio::select! {
            () = ended_by_signal => Stop::Signal,
            () = command_end(command.as_ref()) => Stop::CommandEnded,
        }
    };
    let mut line = ProgressLine::new();
    let stop = recording.run(ended, |progress| line.show(progress)).await;
    line.clear();
    let stop = stop.map_err(|e| explain::session(&e))?;
    abort_on_second_signal();
    let outcome = recording.finish(stop).map_err(|e| explain::session(&e))?;
    Ok((outcome, command))
}

pub(super) fn forced_fallbacks(names: &[String]) -> Result<Vec<Feature>, Failure> {
    let unknown = |name: &String| {
        let known: Vec<&str> = FEATURES.iter().map(|spec| spec.name).collect();
        let message = format!("--force-fallback {}: no such feature", name::clean(name.as_bytes()));
        Failure::new(Exit::Usage, message).mend(format!("features: {}, all", known.join(", ")))
    };
    let found: Result<Vec<_>, _> =
        names.iter().map(|name| features::named(name).ok_or_else(|| unknown(name))).collect();
    Ok(found?.concat())
}

fn open_outputs(args: &RecordArgs) -> Result<OutputSet, Failure> {
    let mut paths = args.output.clone();
    if paths.is_empty() {
        paths.push(PathBuf::from(DEFAULT_OUTPUT));
    }
    let unknown = |name: &str| {
        let known: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
        Failure::new(Exit::Usage, format!("--format {name}: no such format"))
            .mend(format!("formats: {}", known.join(", ")))
    };
    let by_name = |name: &str| format_by_name(name).ok_or_else(|| unknown(name));
    let stdout = by_name("text")?;
    let format: Option<&Format> = args.format.as_deref().map(by_name).transpose()?;
    OutputSet::open(&paths, format, stdout).map_err(|error| Failure::new(Exit::Usage, error))
}

fn resolve_target(args: &RecordArgs) -> Result<Target, Failure> {
    let selection = Selection {
        all: args.all,
        pids: &args.pid,
        children: !args.no_children,
        cgroup: args.cgroup.as_deref(),
        comm: args.comm.as_deref(),
        command: &args.command,
    };
    let mut target = selection.resolve()?;
    target.filter.mode = if args.user_only {
        MODE_USER
    } else if args.kernel_only {
        MODE_KERNEL
    } else {
        0
    };
    Ok(target)
}

fn record_options(
    args: &RecordArgs,
    (events, frequency_hz): (Vec<Chosen>, u64),
    log_level: LogLevel,
    target: &Target,
    force_fallback: Vec<Feature>,
) -> Result<RecordOptions, Failure> {
    let path = args.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX));
    let mut notes = Vec::new();
    let offsets = match btf::task_offsets(path) {
        Ok(offsets) => offsets,
        // Children cannot be followed without: that would silently be a smaller target.
        Err(error) if target.filter.follow_children != 0 => {
            let message = format!("children of the target cannot be followed: {error}");
            return Err(Failure::new(Exit::Unsupported, message)
                .mend("record without them: --no-children; see `profiler doctor`, line `btf`"));
        }
        Err(error) => {
            notes.push(format!("no BTF, so processes that reuse an id are not told apart: {error}"));
            TaskOffsets::UNKNOWN
        }
    };
    let waits = kernel_facts::waits(args, &events, path)?;
    let call_stacks = kernel_facts::call_stacks(&events, path)?;
    let net = kernel_facts::net(&events, path)?;
    notes.extend(net.iter().flat_map(SocketFacts::notes));
    Ok(RecordOptions {
        events,
        frequency_hz,
        duration: args.duration,
        filter: target.filter,
        targets: target.pids.clone(),
        target_words: target.words.clone(),
        offsets,
        btf: path.to_owned(),
        force_fallback,
        waits,
        call_stacks,
        net,
        small: false,
        idle: args.idle,
        sampler: match args.sampler {
            Sampler::Auto => None,
            Sampler::Cycles => Some(Clock::Cycles),
            Sampler::CpuClock => Some(Clock::CpuClock),
        },
        unwind: match args.unwind {
            Unwind::Auto => UnwindMode::Auto,
            Unwind::Fp => UnwindMode::FramePointer,
            Unwind::EhFrame => UnwindMode::EhFrame,
        },
        unwind_memory: args.unwind_memory << 20,
        allow_attach: args.allow_attach,
        ebpf_cost: true,
        log: log_level >= LogLevel::Debug,
        command_line: std::env::args_os().map(|arg| name::clean(arg.as_encoded_bytes())).collect(),
        notes,
    })
}

fn render_options(args: &RecordArgs) -> RenderOptions {
    RenderOptions { per_thread: args.per_thread, ..RenderOptions::default() }
}

/// Completes at the first SIGINT or SIGTERM, or SIGHUP (a closed terminal) unless it is ignored as nohup(1) does.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error| Failure::new(Exit::Failure, format!("cannot handle signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup =
        if is_ignored(libc::SIGHUP) { None } else { Some(signal(SignalKind::hangup()).map_err(failed)?) };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    })
}

/// True if this process was started with the signal ignored.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null new action makes sigaction(2) only read; all-zero bytes are a valid sigaction.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// From here on Ctrl-C ends the process at once, as if it had never been handled: a shell sees 130.
pub(super) fn abort_on_second_signal() {
    // SAFETY: sets a default disposition; no handler of ours runs any more for this signal.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Completes when the command has ended; never without a command.
pub(super) async fn command_end(command: Option<&RunningCommand>) {
    if let Some(fd) = command.and_then(|command| command.pidfd().ok()) {
        // SAFETY: an OwnedFd keeps its one descriptor open until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        if let Ok(fd) = fd
            && fd.readable().await.is_ok()
        {
            return;
        }
    }
    std::future::pending().await
}

/// The command's status, once it has ended. A command that outlives the recording was asked to end.
pub(super) fn end_command(mut command: RunningCommand, stop: Stop) -> Result<Option<ExitStatus>, Failure> {
    let failed = |error| Failure::new(Exit::Failure, format!("cannot wait for the command: {error}"));
    if matches!(stop, Stop::CommandEnded | Stop::TargetsGone) {
        return command.wait().map(Some).map_err(failed);
    }
    if command.try_wait().map_err(failed)?.is_none() {
        command.terminate().map_err(failed)?;
        let pidfd = command.pidfd().map_err(failed)?;
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let grace = rustix::event::Timespec { tv_sec: TERMINATE_GRACE.as_secs() as i64, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&grace)).is_ok_and(|ready| ready > 0) {
            command.wait().map_err(failed)?;
        }
    }
    // The recording ended first, as asked for: its success is what counts.
    Ok(None)
}

/// What is said at the end: the summary on stdout if nothing else was asked for, and where the outputs went.
fn report_end(args: &RecordArgs, outcome: &Outcome, written: &Written) {
    let profile = &outcome.profile;
    if args.output.is_empty() {
        // A closed pipe is the reader's choice, and there is nobody to tell of another failure.
        _ = text::write_summary(profile, &render_options(args), &mut io::stdout().lock());
    }
    let mut stderr = io::stderr().lock();
    if outcome.stop == Stop::TargetsGone {
        _ = writeln!(stderr, "profiler: all target processes have ended");
    }
    for path in &written.files {
        let counted = profile.sample_types.iter().position(|t| t.unit == Unit::Count);
        let (samples, lost) = (counted.map_or(0, |i| profile.total(i)), profile.losses.lost_samples());
        _ = writeln!(stderr, "profiler: wrote {}: {samples} samples, {lost} lost", path.display());
    }
    for error in written.errors.iter().skip(1) {
        _ = writeln!(stderr, "profiler: {error}");
    }
}

/// One line on a terminal that says that something is going on; nothing elsewhere.
struct ProgressLine {
    shown: bool,
    terminal: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { shown: false, terminal: io::stderr().is_terminal() }
    }

    fn show(&mut self, progress: Progress) {
        if self.terminal {
            let (seconds, samples) = (progress.elapsed.as_secs(), progress.samples);
            self.shown = true;
            _ = write!(io::stderr(), "\r\x1b[Krecording: {seconds} s, {samples} samples (Ctrl-C ends)");
        }
    }

    fn clear(&mut self) {
        if self.shown {
            _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
