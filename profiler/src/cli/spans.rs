//! What the commands that show spans of time have in common: the arguments that say when and how, the run, the writing.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{
    args::{LogLevel, parse_seconds},
    error::{Exit, Failure},
    explain,
    record::{abort_on_second_signal, command_end, end_command, stop_signal},
};
use crate::{
    host::btf,
    model::name,
    render::RenderError,
    session::{SessionError, Stop, sched::AccountOptions, spans::Spans},
    target::{
        Target,
        command::{RunningCommand, shell_exit_code},
    },
};

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

impl SpanArgs {
    /// What they mean for a target. `event`: its name in reports.
    ///
    /// # Errors
    /// Without the kernel's types, there is nothing.
    pub fn options(
        &self,
        event: &'static str,
        target: &Target,
        log_level: LogLevel,
    ) -> Result<AccountOptions, Failure> {
        let path = self.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX));
        let unsupported = |error| {
            Failure::new(Exit::Unsupported, format!("threads cannot be accounted: {error}"))
                .mend("see `profiler doctor`, line `btf`")
        };
        Ok(AccountOptions {
            event,
            duration: self.duration,
            interval: self.interval,
            filter: target.filter,
            targets: target.pids.clone(),
            target_words: target.words.clone(),
            offsets: btf::task_offsets(path).map_err(unsupported)?,
            sched_offsets: btf::sched_offsets(path).map_err(unsupported)?,
            btf: path.to_owned(),
            counters: Some(Vec::new()),
            wakers: true,
            ebpf_cost: self.ebpf_cost,
            log: log_level >= LogLevel::Debug,
            command_line: std::env::args_os().map(|arg| name::clean(arg.as_encoded_bytes())).collect(),
            notes: Vec::new(),
        })
    }
}

/// Writes a span to stdout. `false`: nobody reads it any more.
pub fn write(written: impl FnOnce(&mut dyn io::Write) -> Result<(), RenderError>) -> Result<bool, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match written(&mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => Ok(true),
        Err(RenderError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(Exit::Failure, format!("stdout: {error}"))),
    }
}

/// Why the loop of intervals ends before its time.
enum Halt {
    /// Nobody reads what is written.
    Unread,
    /// Something failed.
    Failed(Failure),
}

impl From<SessionError> for Halt {
    fn from(error: SessionError) -> Self {
        Self::Failed(explain::session(&error))
    }
}

/// Accounts a target and shows each span; gives the process's exit code. `start` attaches everything; `show` writes a
/// span, and gives `false` if nobody reads it any more.
///
/// # Errors
/// What cannot be attached, read or written.
pub fn run<S: Spans>(
    target: &mut Target,
    start: impl FnOnce() -> Result<S, SessionError>,
    mut show: impl FnMut(S::Span) -> Result<bool, Failure>,
) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failure, format!("cannot start the event loop: {error}")))?;
    let (span, stop, command) = runtime.block_on(collect(target, start, &mut show))?;
    let status = command.map_or(Ok(None), |command| end_command(command, stop));
    if let Some(span) = span {
        show(span)?;
    }
    if stop == Stop::TargetsGone {
        _ = writeln!(io::stderr(), "profiler: all target processes have ended");
    }
    Ok(status?.map_or(Exit::Success.code(), shell_exit_code))
}

async fn collect<S: Spans>(
    target: &mut Target,
    start: impl FnOnce() -> Result<S, SessionError>,
    mut show: impl FnMut(S::Span) -> Result<bool, Failure>,
) -> Result<(Option<S::Span>, Stop, Option<RunningCommand>), Failure> {
    // Handlers before anything is attached: from here on Ctrl-C ends it and loses nothing.
    let ended_by_signal = stop_signal()?;
    let mut spans = start().map_err(|error| explain::session(&error))?;
    spans.add_targets(&target.new_descendants()).map_err(|error| explain::session(&error))?;
    spans.begin().map_err(|error| explain::session(&error))?;
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
    let each = |span| match show(span) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Halt::Unread),
        Err(failure) => Err(Halt::Failed(failure)),
    };
    let (stop, is_read) = match spans.run(ended, each).await {
        Ok(stop) => (stop, true),
        Err(Halt::Unread) => (Stop::Signal, false),
        Err(Halt::Failed(failure)) => return Err(failure),
    };
    abort_on_second_signal();
    let span = spans.finish().map_err(|error| explain::session(&error))?;
    Ok((is_read.then_some(span), stop, command))
}
