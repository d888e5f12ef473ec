//! The `profiler` binary: parse, dispatch, exit with a documented code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use profiler::cli::{
    args::{Cli, Command},
    doctor,
    error::Exit,
    generate, record, report,
};

fn main() -> ExitCode {
    let begun_ns = profiler::session::monotonic_ns();
    let cli = Cli::parse();
    env_logger::Builder::new().filter_level(cli.log_level.filter()).format(log_line).init();
    let result = match cli.command {
        Command::Record(args) => record::run(&args, cli.log_level, begun_ns),
        Command::Report(args) => report::run(&args).map(|()| Exit::Success.code()),
        Command::Doctor(args) => doctor::run(&args).map(Exit::code),
        Command::Generate { table } => generate::run(table).map(|()| Exit::Success.code()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Nothing can be done about a closed stderr.
            _ = writeln!(std::io::stderr(), "{failure}");
            ExitCode::from(failure.exit.code())
        }
    }
}

fn log_line(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> std::io::Result<()> {
    writeln!(out, "profiler: {}: {}", record.level().as_str().to_lowercase(), record.args())
}

