//! `profiler ctl`: tells a running daemon what to do, and shows how it is.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::error::{Exit, Failure, to_stdout};
use crate::{
    daemon::control::{ClientError, Verb, ask},
    model::name::clean,
    render::units::{bytes, seconds},
};

/// Arguments of `ctl`.
#[derive(Args, Debug)]
pub struct CtlArgs {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = "/run/profiler/control.sock", global = true)]
    pub socket: PathBuf,

    #[command(subcommand)]
    pub command: CtlCommand,
}

/// What the daemon is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum CtlCommand {
    /// Resume recording.
    Start,
    /// Pause recording; the daemon goes on, its history can be read.
    Stop,
    /// End the window now: what happened until now is in the history when this ends.
    Flush,
    /// Counters of /metrics begin anew at 0.
    Reset,
    /// Show how the daemon is: state, windows, store, governor, cost, losses.
    Status {
        /// Print JSON (schema profiler.status/1)
        #[arg(long)]
        json: bool,
    },
}

/// Runs `ctl`.
///
/// # Errors
/// If no daemon answers, or it did not do it.
pub fn run(args: &CtlArgs) -> Result<(), Failure> {
    let verb = match args.command {
        CtlCommand::Start => Verb::Start,
        CtlCommand::Stop => Verb::Stop,
        CtlCommand::Flush => Verb::Flush,
        CtlCommand::Reset => Verb::Reset,
        CtlCommand::Status { .. } => Verb::Status,
    };
    let result = ask(&args.socket, verb).map_err(|error| failure(&error))?.unwrap_or(Value::Null);
    let text = match args.command {
        CtlCommand::Status { json: true } => format!("{result}\n"),
        CtlCommand::Status { json: false } => status(&result),
        CtlCommand::Flush => format!("window {} is written\n", number(&result, "/window")),
        CtlCommand::Start | CtlCommand::Stop | CtlCommand::Reset => String::new(),
    };
    to_stdout(io::stdout().write_all(text.as_bytes()))
}

fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Connect { cause, .. } => {
            let mend = match cause.kind() {
                io::ErrorKind::PermissionDenied => "root and the daemon's own user may control it",
                _ => "no daemon seems to run: `systemctl status profiler`, or `--socket` names another one",
            };
            Failure::new(Exit::NoTarget, error).mend(mend)
        }
        ClientError::Io(_) | ClientError::Refused(_) => Failure::new(Exit::Failure, error),
    }
}

fn number(document: &Value, pointer: &str) -> u64 {
    document.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// Text of the daemon's, cleaned: it is shown on a terminal.
fn text(document: &Value, pointer: &str) -> Option<String> {
    document.pointer(pointer).and_then(Value::as_str).map(|text| clean(text.as_bytes()))
}

/// The status on one screen.
fn status(document: &Value) -> String {
    let mut out = String::new();
    let number = |pointer| number(document, pointer);
    let mut line = |name: &str, value: String| _ = writeln!(out, "{name:<10} {value}");
    let state = text(document, "/state").unwrap_or_default();
    line("state", format!("{state}, process {}", number("/pid")));
    if let Some(trouble) = text(document, "/trouble") {
        line("trouble", trouble);
    }
    let (written, not_kept) = (number("/windows/written"), number("/windows/not_kept"));
    line(
        "windows",
        format!("{written} written, {not_kept} not kept, the last has number {}", number("/windows/last")),
    );
    let directory = text(document, "/store/directory").unwrap_or_default();
    line("store", format!("{directory}, {}", bytes(number("/store/bytes"))));
    let why = text(document, "/governor/why").map(|why| format!(": {why}")).unwrap_or_default();
    line(
        "governor",
        format!(
            "step {}{why}; {} samples a second and CPU, stacks of {} frames",
            number("/governor/step"),
            number("/governor/frequency_hz"),
            number("/governor/stack_depth")
        ),
    );
    let cpu = number("/cost/user_cpu_ns").saturating_add(number("/cost/system_cpu_ns"));
    line(
        "cost",
        format!(
            "{} CPU, {} in eBPF programs; {} memory, {} in the kernel",
            seconds(cpu),
            seconds(number("/cost/ebpf_run_ns")),
            bytes(number("/cost/rss_bytes")),
            bytes(number("/cost/map_bytes"))
        ),
    );
    let losses = document.get("losses").and_then(Value::as_object);
    let lost: Vec<String> = losses
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(cause, count)| format!("{} {count}", clean(cause.as_bytes())))
        .collect();
    line("lost", if lost.is_empty() { "0".to_owned() } else { lost.join(", ") });
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_one_screen() {
        let document = json!({
            "state": "recording", "pid": 7, "trouble": "a\u{1b}[2J",
            "windows": { "written": 5, "not_kept": 1, "last": 6 },
            "store": { "directory": "/var/lib/profiler", "bytes": 3_000_000 },
            "governor": { "step": 1, "why": "CPU", "frequency_hz": 9, "stack_depth": 64 },
            "cost": { "user_cpu_ns": 1_000_000_000u64, "rss_bytes": 1 },
            "losses": { "ring_full": 2, "none": 0 },
        });
        let text = status(&document);
        assert!(text.starts_with("state      recording, process 7\ntrouble    a\\x1b[2J\n"), "{text}");
        assert!(text.contains("\nwindows    5 written, 1 not kept, the last has number 6\n"), "{text}");
        assert!(
            text.contains("step 1: CPU; 9 samples") && text.ends_with("\nlost       ring_full 2\n"),
            "{text}"
        );
    }
}
