//! `profiler java`: resolve what the user asked for, look at a JVM, show each interval and the whole run.

use std::ffi::OsString;

use clap::Args;

use super::{
    args::LogLevel,
    error::{Exit, Failure},
    event, jvm,
    spans::{self, SpanArgs},
    stat::samples,
    target::Selection,
};
use crate::{
    model::java::Span,
    render::java::{write_json, write_text},
    session::java::{JavaOptions, JavaRun, Watch},
};

/// Arguments of `java`.
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing is loaded into the JVM, and it needs no option (docs/java.md).\n\nExamples:\n  profiler java -p 4711 \
    -d 10            10 s of a JVM\n  profiler java -p 4711 -i 2             every 2 s, until Ctrl-C\n  profiler java -- java -jar \
    app.jar    a command, which is or becomes a JVM"
)]
pub struct JavaArgs {
    /// The JVM.
    #[arg(short, long, value_name = "PID")]
    pub pid: Option<u32>,

    /// Samples per second and CPU, which tell methods [default: 99]
    #[arg(short = 'F', long, value_name = "HZ")]
    pub frequency: Option<u64>,

    /// Threads, methods and monitors to show as text.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Start this command, stopped until everything is attached, and look at it until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

/// Runs `java`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
///
/// # Errors
/// What is not possible, or failed.
pub fn run(args: &JavaArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let frequency_hz = event::frequency(args.frequency)?;
    if args.pid.is_none() && args.command.is_empty() {
        return Err(Failure::new(Exit::Usage, "which JVM?")
            .mend("-p PID (`pgrep -a java` lists those that are called so), or a command behind --"));
    }
    let pids: Vec<u32> = args.pid.into_iter().collect();
    let selection = Selection {
        all: false,
        pids: &pids,
        children: false,
        cgroup: None,
        comm: None,
        command: &args.command,
    };
    let mut target = selection.resolve()?;
    let Some(&pid) = target.pids.first() else {
        return Err(Failure::new(Exit::NoTarget, "there is no process to look at"));
    };
    let watch = Watch::start(pid, args.pid.is_some()).map_err(|error| jvm::failure(pid, &error))?;
    let SpanArgs { duration, interval, json, ebpf_cost, ref btf } = args.span;
    // What is below goes on until it is told to end.
    let endless = SpanArgs { duration: None, interval: None, json, ebpf_cost, btf: btf.clone() };
    let accounts = endless.options("java", &target, log_level)?;
    let options =
        JavaOptions { pid, duration, interval, samples: samples(&accounts, frequency_hz, &[]), accounts };
    let show = |span: Span| {
        spans::write(|out| if json { write_json(&span, out) } else { write_text(&span, args.rows, out) })
    };
    spans::run(&mut target, || JavaRun::start(&options, watch, begun_ns), show)
}
