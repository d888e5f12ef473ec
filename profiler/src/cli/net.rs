//! `profiler net`: sockets and connections of processes.

use std::{ffi::OsString, path::Path, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{
    args::LogLevel,
    error::{Exit, Failure},
    spans::{self, SpanArgs},
    target::Selection,
};
use crate::{
    host::btf,
    model::net::{By, Row, Span},
    render::net::{write_json, write_text},
    session::net::{NetAccounting, NetworkOptions},
};

/// Arguments of `net`.
#[derive(Args, Debug)]
pub struct NetArgs {
    /// Account the sockets of all processes (this is the default).
    #[arg(short, long, conflicts_with_all = ["pid", "command"])]
    pub all: bool,

    /// Account the sockets of these processes and of their children.
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Leave out children of the processes given by -p or of the command.
    #[arg(long)]
    pub no_children: bool,

    /// Account only what processes of this control group (v2) and of those below it do.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// What a row is about, besides the protocol.
    #[arg(long, value_enum, default_value_t = Rows::Process)]
    pub by: Rows,

    /// Show the rows with the most of this first.
    #[arg(long, value_name = "COLUMN", value_parser = Row::COLUMNS, default_value = "bytes")]
    pub sort: String,

    /// Rows to show as text.
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub rows: usize,

    /// Ask the system's resolver for the names of remote addresses, which may ask the network.
    #[arg(long)]
    pub resolve: bool,

    #[command(flatten)]
    pub span: SpanArgs,

    /// Sockets that are kept apart at a time; the rest is in rows `[other]` [default: twice as many as there are, at least 16,384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    pub accounts: Option<u32>,

    /// Start this command, stopped until everything is attached, and account its sockets until it ends.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    /// A process
    Process,
    /// A connection of a process, or the two ends of another socket
    Connection,
    /// A remote address
    Remote,
    /// The port of the side that listens
    Port,
    /// A control group: container or service
    Container,
}

impl From<Rows> for By {
    fn from(rows: Rows) -> Self {
        match rows {
            Rows::Process => Self::Process,
            Rows::Connection => Self::Connection,
            Rows::Remote => Self::Remote,
            Rows::Port => Self::Port,
            Rows::Container => Self::Container,
        }
    }
}

/// Runs `net`; gives the process's exit code. `begun_ns`: when the profiler was started (`CLOCK_MONOTONIC`).
pub fn run(args: &NetArgs, log_level: LogLevel, begun_ns: u64) -> Result<u8, Failure> {
    let selection = Selection {
        all: args.all,
        pids: &args.pid,
        children: !args.no_children,
        cgroup: args.cgroup.as_deref(),
        comm: None,
        command: &args.command,
    };
    let mut target = selection.resolve()?;
    let path = args.span.btf.as_deref().unwrap_or(Path::new(btf::VMLINUX));
    let account = args.span.options("net", &target, log_level)?;
    let offsets = btf::net_offsets(path).map_err(|error| {
        Failure::new(Exit::Unsupported, format!("sockets cannot be accounted: {error}"))
            .mend("see `profiler doctor`, line `net`")
    })?;
    let options = NetworkOptions {
        account,
        offsets,
        by: args.by.into(),
        sockets: args.accounts,
        round_trips: true,
        resolve: args.resolve,
    };
    let write =
        |mut span: Span| {
            span.sort(&args.sort);
            spans::write(|out| {
                if args.span.json { write_json(&span, out) } else { write_text(&span, args.rows, out) }
            })
        };
    spans::run(&mut target, || NetAccounting::start(&options, begun_ns), write)
}
