//! The first process of a virtual machine that `cargo xtask vm-test` boots: makes the places that tests expect, runs
//! each test by itself, says its verdict on the console, and powers off.
//!
//! Process 1 only mounts, waits for whatever ends, and has an alarm; the tests are started by a child of it (the same
//! program), so that no test's orphan is taken for a test.

mod places;
mod protocol;
mod run;

use std::{env, fs, process::Command, thread, time::Duration};

use rustix::{
    process::{WaitOptions, wait},
    system::{RebootCommand, reboot},
};

/// What tells process 1 and its child apart.
const RUN: &str = "run";

/// Seconds after which the machine is switched off whatever it does; a parameter of the kernel's command line.
const LIMIT_VARIABLE: &str = "VM_LIMIT_S";

fn main() {
    let console = protocol::Console::from_environment();
    if env::args().nth(1).as_deref() == Some(RUN) {
        return run::all(&console);
    }
    if let Err(e) = supervise() {
        console.say(&format!("broken {e}"));
    }
    rustix::fs::sync();
    // Only comes back if it is refused: then the host's limit ends the machine.
    _ = reboot(RebootCommand::PowerOff);
    loop {
        thread::park();
    }
}

/// A PMU's interrupts take long here, and the kernel would lower the rate that it allows (`perf_sample_event_took`,
/// kernel/events/core.c) below that of the tests.
fn keep_rates() -> Result<(), String> {
    const NO_LIMIT: &str = "/proc/sys/kernel/perf_cpu_time_max_percent";
    fs::write(NO_LIMIT, "0").map_err(|e| format!("{NO_LIMIT}: {e}"))
}

fn supervise() -> Result<(), Box<dyn std::error::Error>> {
    places::make()?;
    keep_rates()?;
    let limit: u64 = env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(limit));
        protocol::Console::from_environment().say(&format!("broken the guest's alarm rang after {limit} s"));
        _ = reboot(RebootCommand::PowerOff);
    });
    let child = Command::new("/init").arg(RUN).spawn()?.id();
    loop {
        // No child left is no reason to go on either.
        let Some((pid, _)) = wait(WaitOptions::empty())? else { continue };
        if pid.as_raw_nonzero().get().unsigned_abs() == child {
            return Ok(());
        }
    }
}
