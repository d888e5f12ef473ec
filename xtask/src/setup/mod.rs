//! `cargo xtask setup`: finds or installs what builds the eBPF programs, and proves it by building them.
//!
//! It tries ways in an order, least intrusive first, and stops at the first that gives a working pair of compiler and
//! linker: what is there already; `rust-src` for a nightly that is there; the distribution's packages; a new nightly.
//! It is idempotent: on a machine that is set up it only looks.

pub mod apt;
mod linker;
mod rust;
mod tools;

use std::{collections::HashSet, path::PathBuf};

use ebpf_toolchain::{Action, Missing, Survey, Toolchain};

use crate::{
    process::{Failure, say},
    workspace,
};
use apt::Apt;

/// A way to a compiler. `Ok(false)`: does not apply to this machine.
type Way = fn(&Survey, &mut Apt) -> Result<bool, Failure>;

const WAYS: [Way; 4] = [|_, _| Ok(true), rust::add_sources, rust::install_packages, rust::install_nightly];

/// What the machine is set up for; each includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// `cargo build`.
    Build,
    /// The checks, and the tests that need no kernel.
    Checks,
    /// Everything that `cargo xtask test` does.
    Tests,
}

/// Sets the machine up.
///
/// # Errors
/// One line per way that was tried and did not work, each with the command to give by hand, and the missing piece.
pub fn setup(extent: Extent) -> Result<(), Failure> {
    let mut apt = Apt::default();
    let toolchain = toolchain(&mut apt)?;
    say(format!("eBPF toolchain: {toolchain}"));
    if extent >= Extent::Checks {
        rust::components()?;
        tools::compilers(&mut apt)?;
    }
    if extent >= Extent::Tests {
        tools::consumers(&mut apt)?;
    }
    let ebpf = workspace::ebpf_crate()?;
    ebpf.run(&toolchain, Action::Build)
        .map_err(|e| Failure::new(format!("{e}, although its toolchain is complete: {toolchain}")))?;
    say("set up: `cargo build --release` works");
    Ok(())
}

fn toolchain(apt: &mut Apt) -> Result<Toolchain, Failure> {
    let mut problems = Vec::new();
    let mut tried = HashSet::new();
    let mut survey = Survey::take();
    for way in WAYS {
        match way(&survey, apt) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(e) => {
                say(format!("that did not work: {e}"));
                problems.push(e.to_string());
                continue;
            }
        }
        survey = Survey::take();
        if let Some(found) = with_linker(&mut survey, &mut tried, &mut problems, apt) {
            return Ok(found);
        }
    }
    let tried: String = problems.iter().map(|problem| format!("\n  tried: {problem}")).collect();
    Err(Failure::new(format!("{}{tried}", missing(survey))))
}

/// The survey's report without its last line, which would advise to run what has just failed.
fn missing(survey: Survey) -> String {
    let text = Missing(survey).to_string();
    let kept: Vec<_> = text.lines().filter(|line| !line.contains("cargo xtask setup")).collect();
    kept.join("\n")
}

/// The toolchain of the survey, with a linker installed for one of its compilers if there is none yet.
fn with_linker(
    survey: &mut Survey,
    tried: &mut HashSet<PathBuf>,
    problems: &mut Vec<String>,
    apt: &mut Apt,
) -> Option<Toolchain> {
    if let Some(found) = survey.toolchain() {
        return Some(found);
    }
    for compiler in survey.compilers.clone() {
        if !tried.insert(compiler.rustc.clone()) {
            continue;
        }
        match linker::install(&compiler, apt) {
            Ok(()) => *survey = Survey::take(),
            Err(e) => {
                say(format!("that did not work: {e}"));
                problems.push(e.to_string());
            }
        }
        if let Some(found) = survey.toolchain() {
            return Some(found);
        }
    }
    None
}
