//! `cargo xtask test`: every check and test, in the order in which they are cheap, the real-kernel tests last: on stock
//! kernels in virtual machines, then on this machine's.
//!
//! The last line of the output is cargo's own summary of the kernel tests (`test result: ...`).

use std::time::{Duration, Instant};

use ebpf_toolchain::Action;

use crate::{
    dist,
    process::{Failure, as_root, is_root, run, say},
    run::build_release,
    setup::{self, Extent},
    soak, tidy, vm, workspace,
};

/// What is run.
pub struct Plan {
    /// The tests that load eBPF programs into this machine's kernel.
    pub kernel: bool,
    /// Only tests whose name contains this, and no other checks.
    pub filter: Option<String>,
}

type Step = (&'static str, fn(&Plan) -> Result<(), Failure>);

const CHECKS: [Step; 4] =
    [("format", format), ("clippy", clippy), ("eBPF lints", ebpf_lints), ("tidy", |_| tidy::tidy(false))];
const TESTS: [Step; 1] = [("unit, golden and command-line tests", user_tests)];
const DIST: [Step; 1] = [("static binary in an empty root", |_| dist::dist(None, true))];
const STOCK_KERNELS: [Step; 1] =
    [("real-kernel tests on stock kernels", |_| vm::vm_test(&vm::Plan::default_kernels()?, false))];
/// Long enough for windows, steps of the governor and some 30,000 processes.
const SOAK: [Step; 1] = [("the daemon under load", daemon_under_load)];
const KERNEL: [Step; 2] = [("release binary", |_| build_release()), ("real-kernel tests", kernel_tests)];

/// Runs the plan; the first step that fails ends it.
pub fn test(plan: &Plan) -> Result<(), Failure> {
    if plan.kernel && !is_root() {
        let hint = "the kernel tests load eBPF programs: run as root, or leave them out with --no-kernel";
        as_root("true").map_err(|e| Failure::new(format!("{e}; {hint}")))?;
    }
    let mut steps: Vec<Step> = vec![("set-up", set_up)];
    if plan.filter.is_none() {
        steps.extend(CHECKS);
    }
    steps.extend(TESTS);
    if plan.kernel {
        if plan.filter.is_none() {
            steps.extend(DIST);
            steps.extend(STOCK_KERNELS);
            steps.extend(SOAK);
        }
        steps.extend(KERNEL);
    }
    let start = Instant::now();
    for (number, (name, step)) in steps.iter().enumerate() {
        let elapsed = start.elapsed().as_secs();
        eprintln!("== {}/{} {name} (after {}:{:02})", number + 1, steps.len(), elapsed / 60, elapsed % 60);
        step(plan).map_err(|e| Failure::new(format!("{name}: {e}")))?;
    }
    Ok(())
}

fn daemon_under_load(_: &Plan) -> Result<(), Failure> {
    if !is_root() {
        say("left out: only root can run it, and whoever runs the tests is not");
        return Ok(());
    }
    soak::check(Duration::from_secs(150))
}

fn set_up(plan: &Plan) -> Result<(), Failure> {
    setup::setup(if plan.kernel { Extent::Tests } else { Extent::Checks })
}

fn format(_: &Plan) -> Result<(), Failure> {
    run(workspace::cargo().args(["fmt", "--all", "--check"]))?;
    let ebpf = workspace::root().join("profiler-ebpf");
    run(workspace::cargo().args(["fmt", "--check"]).current_dir(ebpf))
}

fn clippy(_: &Plan) -> Result<(), Failure> {
    run(workspace::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn ebpf_lints(_: &Plan) -> Result<(), Failure> {
    let toolchain = ebpf_toolchain::find().map_err(|e| Failure::new(e.to_string()))?;
    let action = if toolchain.compiler.has_clippy() { Action::Clippy } else { Action::Check };
    workspace::ebpf_crate()?.run(&toolchain, action).map_err(|e| Failure::new(e.to_string()))
}

fn user_tests(plan: &Plan) -> Result<(), Failure> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--exclude", "profiler-tests"]);
    if let Some(filter) = &plan.filter {
        command.args(["--", filter]);
    }
    run(&mut command)
}

/// The tests are built as the user who runs this, and only run as root: no file of root's is left in the target
/// directory.
fn kernel_tests(plan: &Plan) -> Result<(), Failure> {
    let mut command = workspace::cargo();
    // `--tests`: no documentation tests, whose summary would come last.
    command.args(["test", "--package", "profiler-tests", "--tests", "--", "--test-threads=1"]);
    command.args(plan.filter.iter());
    command.env("PROFILER_BIN", workspace::release_binary()?);
    if !is_root() {
        let triple = workspace::host_triple()?.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo --preserve-env --");
    }
    run(&mut command)
}
