//! The `profiler` binary: parse, dispatch, exit with a documented code.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use profiler::cli::{
    args::{Cli, Command},
    ctl, daemon, doctor,
    error::{Exit, Failure, to_stdout},
    explain, generate, java, jvm, list, net, packets, query, record, report, sched, stat, syscalls,
    unwind_table,
};

fn main() -> ExitCode {
    // One heap for all threads: what one of them gives back at the start another one takes.
    #[cfg(target_env = "gnu")]
    // SAFETY: a number for the allocator, before there is another thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    let begun_ns = profiler::session::monotonic_ns();
    let cli = Cli::parse();
    env_logger::Builder::new()
        .filter_level(cli.log_level.filter())
        // What the loader says of itself is not what the kernel side logs.
        .filter_module("aya", log::LevelFilter::Warn)
        .filter_module("aya_obj", log::LevelFilter::Warn)
        // That it may not raise RLIMIT_MEMLOCK matters only if a map is refused, whose failure names the limit
        // (cli::doctor::explain): before Linux 5.11, where maps count against it.
        .filter_module("aya::sys", log::LevelFilter::Error)
        .format(log_line)
        .init();
    let result = match cli.command {
        Command::Record(args) => record::run(&args, cli.log_level, begun_ns),
        Command::Report(args) => report::run(&args, &mut std::io::stdout().lock())
            .map(|()| Exit::Success.code())
            .map_err(|error| explain::report(&error)),
        Command::Query(args) => {
            query::run(&args, &mut std::io::stdout().lock()).map(|()| Exit::Success.code())
        }
        Command::Stat(args) => stat::run(&args, cli.log_level, begun_ns),
        Command::Sched(args) => sched::run_sched(&args, cli.log_level, begun_ns),
        Command::Cpu(args) => sched::run_cpu(&args, cli.log_level, begun_ns),
        Command::Syscalls(args) => syscalls::run(&args, cli.log_level, begun_ns),
        Command::Net(args) => net::run(&args, cli.log_level, begun_ns),
        Command::Packets(args) => packets::run(&args, cli.log_level, begun_ns),
        Command::Java(args) => java::run(&args, cli.log_level, begun_ns),
        Command::Daemon(args) => daemon::run_daemon(&args, cli.log_level),
        Command::Ctl(args) => ctl::run(&args).map(|()| Exit::Success.code()),
        Command::List(args) => list::run(&args, &mut std::io::stdout().lock()).map(|()| Exit::Success.code()),
        Command::Doctor(options) => run_doctor(&options),
        Command::Jvm(args) => jvm::run(&args, &mut std::io::stdout().lock()).map(|()| Exit::Success.code()),
        Command::UnwindTable(args) => {
            unwind_table::run(&args, &mut std::io::stdout().lock()).map(|()| Exit::Success.code())
        }
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

fn run_doctor(options: &doctor::Options) -> Result<u8, Failure> {
    let mut code = Exit::Success.code();
    to_stdout(doctor::run(options, &mut std::io::stdout().lock()).map(|found| code = found))?;
    Ok(code)
}

fn log_line(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> std::io::Result<()> {
    writeln!(out, "profiler: {}: {}", record.level().as_str().to_lowercase(), record.args())
}
