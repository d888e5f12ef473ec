//! What the daemon costs, by how much there is to account: processes, switches, system calls, in steps
//! (`tests/workload/pace.c`). Each load has a daemon of its own, with the default budget; what is shown is behind the time in
//! which its governor settles.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    daemon::{Daemon, Ended, Used},
    document,
    process::{Failure, run, say},
    workspace,
};

/// A load: its name in the table, and the program's arguments; none: nothing.
const LOADS: &[(&str, Option<[&str; 2]>)] = &[
    ("nothing", None),
    ("10 processes, each awake ten times a second", Some(["processes", "10"])),
    ("100 processes", Some(["processes", "100"])),
    ("1,000 processes", Some(["processes", "1000"])),
    ("5,000 processes", Some(["processes", "5000"])),
    ("500 round trips over pipes a second", Some(["round_trips", "500"])),
    ("2,000 round trips", Some(["round_trips", "2000"])),
    ("8,000 round trips", Some(["round_trips", "8000"])),
    ("10,000 system calls a second", Some(["calls", "10000"])),
    ("100,000 system calls", Some(["calls", "100000"])),
    ("1,000,000 system calls", Some(["calls", "1000000"])),
];

/// How long a load runs before it is measured, and while.
struct Times {
    settle: Duration,
    measure: Duration,
}

const FULL: Times = Times { settle: Duration::from_secs(60), measure: Duration::from_secs(60) };
const QUICK: Times = Times { settle: Duration::from_secs(20), measure: Duration::from_secs(20) };

/// Measures all loads, and writes the table.
pub fn measure(directory: &Path, quick: bool) -> Result<(), Failure> {
    let program = directory.join("pace");
    let source = workspace::root().join("tests/workload/pace.c");
    run(Command::new("gcc").args(["-O2", "-pthread"]).arg(&source).arg("-o").arg(&program))?;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let times = if quick { QUICK } else { FULL };
    let command =
        if quick { "cargo xtask bench --quick --only daemon" } else { "cargo xtask bench --only daemon" };
    let mut text = document::circumstances(command, cpus)?;
    text.push_str(
        "\n| load | switches/s | system calls/s | runs of eBPF programs/s | eBPF, % of the machine | own CPU, % of the machine | step | RSS MB | kernel MB | store MB/day, unmerged |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (number, (name, arguments)) in LOADS.iter().enumerate() {
        say(format!("daemon: {name}"));
        let directory = directory.join(format!("daemon-{number}"));
        fs::create_dir_all(&directory).map_err(|e| Failure::io(&directory, &e))?;
        let load = arguments.map(|arguments| start(&program, arguments)).transpose()?;
        let row = Row::measure(&directory, &times, cpus)?;
        drop(load);
        text.push_str(&row.line(name));
    }
    print!("{text}");
    document::write("docs/performance.md", "daemon", &text)
}

fn start(program: &Path, arguments: [&str; 2]) -> Result<Ended, Failure> {
    let child = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    child.map(Ended).map_err(|e| Failure::io(program, &e))
}

/// What was used in a time, and what happened in it.
struct Row {
    before: Used,
    after: Used,
    time: Duration,
    cpus: usize,
    switches: u64,
    calls: u64,
}

impl Row {
    fn measure(directory: &Path, times: &Times, cpus: usize) -> Result<Self, Failure> {
        let mut daemon = Daemon::start(directory, &[])?;
        thread::sleep(times.settle);
        let before = daemon.flush()?;
        let begun = Instant::now();
        let counted_before = host(&daemon)?;
        thread::sleep(times.measure);
        daemon.check()?;
        let after = daemon.flush()?;
        let time = begun.elapsed();
        let counted = host(&daemon)?;
        let added = |at: fn(&(u64, u64)) -> u64| at(&counted).saturating_sub(at(&counted_before));
        Ok(Self { before, after, time, cpus, switches: added(|n| n.0), calls: added(|n| n.1) })
    }

    fn line(&self, name: &str) -> String {
        let (before, after) = (&self.before, &self.after);
        let seconds = self.time.as_secs_f64();
        let per_second = |number: u64| format!("{:.0}", number as f64 / seconds);
        let percent = |ns: u64| ns as f64 / 1e9 / (seconds * self.cpus as f64) * 100.0;
        let per_day = after.store.saturating_sub(before.store) as f64 / seconds * 86_400.0 / 1e6;
        format!(
            "| {name} | {} | {} | {} | {:.2} | {:.2} | {} | {:.0} | {:.0} | {:.0} |\n",
            per_second(self.switches),
            per_second(self.calls),
            per_second(after.ebpf_runs.saturating_sub(before.ebpf_runs)),
            percent(after.ebpf_ns.saturating_sub(before.ebpf_ns)),
            percent(after.own_ns.saturating_sub(before.own_ns)),
            after.step,
            after.rss as f64 / 1e6,
            after.maps as f64 / 1e6,
            per_day,
        )
    }
}

/// Switches and system calls of the machine that are in all windows.
fn host(daemon: &Daemon) -> Result<(u64, u64), Failure> {
    let accounts = daemon.query(&["--accounts"])?;
    let numbers = accounts["host"]["numbers"].as_array().cloned().unwrap_or_default();
    let sum = |metric: &str| -> u64 {
        let of_metric = numbers.iter().filter(|number| number["metric"] == metric);
        of_metric.filter_map(|number| number["value"].as_u64()).sum()
    };
    Ok((sum("switches"), sum("syscalls")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_that_of_the_time_alone() {
        let used = |factor: u64| Used {
            own_ns: factor * 100_000_000,
            ebpf_ns: factor * 50_000_000,
            ebpf_runs: factor * 1000,
            rss: 50_000_000,
            maps: 60_000_000,
            store: factor * 20_000,
            step: 1,
        };
        let row = Row {
            before: used(1),
            after: used(3),
            time: Duration::from_secs(10),
            cpus: 2,
            switches: 5000,
            calls: 70,
        };
        assert_eq!(row.line("x"), "| x | 500 | 7 | 200 | 0.50 | 1.00 | 1 | 50 | 60 | 346 |\n");
    }
}
