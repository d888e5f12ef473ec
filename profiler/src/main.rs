//! The command line's entry.

use std::process::ExitCode;

use clap::Parser;
use profiler::cli::doctor;

#[derive(Parser)]
#[command(version, about)]
enum Command {
    /// Check what works on this host, and how to mend what does not
    Doctor(doctor::Options),
}

fn main() -> ExitCode {
    let Command::Doctor(options) = Command::parse();
    match doctor::run(&options, &mut std::io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("profiler: standard output: {error}");
            ExitCode::FAILURE
        }
    }
}
