//! `cargo xtask run`: from a fresh clone to a running profiler in one command.

use std::{os::unix::process::CommandExt as _, process::Command};

use crate::{
    process::{Failure, as_root, is_root, run as run_command, say},
    setup::{self, Extent},
    workspace,
};

/// Sets up if the toolchain is missing, builds the release binary, and becomes it.
pub fn run(args: &[String]) -> Result<(), Failure> {
    if ebpf_toolchain::find().is_err() {
        setup::setup(Extent::Build)?;
    }
    build_release()?;
    let binary = workspace::release_binary()?;
    let mut command = if is_root() {
        Command::new(&binary)
    } else {
        say("sampling needs root: running through sudo");
        as_root(&binary).map_err(|e| Failure::new(format!("{e}; run as root: {}", binary.display())))?
    };
    match workspace::own_library_path() {
        Some(path) => command.env("LD_LIBRARY_PATH", path),
        None => command.env_remove("LD_LIBRARY_PATH"),
    };
    // Only comes back if it could not start.
    let error = command.args(args).exec();
    Err(Failure::new(format!("{}: {error}", binary.display())))
}

/// Builds the release binary.
pub fn build_release() -> Result<(), Failure> {
    run_command(workspace::cargo().args(["build", "--release", "--package", "profiler"]))
}
