//! Programs that only the tests need.

use ebpf_toolchain::on_path;

use super::apt::Apt;
use crate::process::Failure;

/// Program, its package, and what it is needed for.
const TOOLS: [(&str, &str, &str); 2] =
    [("gcc", "gcc", "the workloads in C"), ("g++", "g++", "the workloads in C++")];

/// Installs what is missing.
pub fn install(apt: &mut Apt) -> Result<(), Failure> {
    for (program, package, why) in TOOLS {
        if on_path(program).is_none() {
            apt.install(&[package], why)?;
        }
    }
    Ok(())
}
