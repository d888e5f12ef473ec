//! Waits for a disk: reads past the page cache, against what the program measures itself.

use std::path::PathBuf;

use profiler_tests::{
    accounts::{Accounts, blocked, number},
    expect,
    record::Record,
    skip::skip,
    view::View,
    workload,
};
use serde_json::Value;

/// Time that the profiler has for making the program's tables, ms.
const WARM: &str = "500";
const READS: &str = "2000";

/// A file beside the workloads, removed in the end.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let program = workload::path("disk");
        Self(program.with_file_name(format!("{name}-{}", std::process::id())))
    }

    fn arguments(&self) -> [&str; 3] {
        [WARM, self.0.to_str().expect("it was made from a text"), READS]
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

/// Wall and CPU time of the reads, ns, and the kernel's number of waits; `None`: there is no direct I/O, or it is one that
/// never waits (files in memory have it since Linux 6.6).
fn times(said: &Value) -> Option<[u64; 3]> {
    let times = said.get("disk")?;
    let times = [0, 1, 2].map(|i| times[i].as_u64().expect("it says its times"));
    (times[2] >= 100).then_some(times)
}

/// What a wait of that length may be off: 2 %, or 1 ms, and what the hypervisor took.
fn tolerance(wall: u64, steal_ns: u64) -> u64 {
    (wall / 50).max(1_000_000) + steal_ns
}

#[test]
fn a_disk_is_waited_for_with_its_stack() {
    let (file, steal) = (File::new("recorded"), expect::steal_ticks());
    let record = Record::new().args(["-e", "offcpu,runq"]);
    let recorded = record.command(&workload::path("disk"), file.arguments()).run();
    let (profile, said) = (recorded.succeeded(), recorded.said());
    let Some([wall, cpu, waits]) = times(&said) else {
        return skip("a_disk_is_waited_for_with_its_stack", "no disk");
    };
    expect::nothing_lost(&profile);
    let (off, queued) = (View::of_type(&profile, "offcpu"), View::of_type(&profile, "runq"));
    let [blocked, waited] = [&off, &queued].map(|view| view.count(|e| e.has("known_disk")));
    let tolerance = tolerance(wall, expect::steal_since_ns(steal));
    // The kernel takes the time once for a wake-up and the switch that it leads to (`rq_clock_skip_update`,
    // kernel/sched/core.c): what the thread waited for the CPU can be CPU time to it.
    assert!(
        blocked + cpu <= wall + tolerance && blocked + waited + cpu + tolerance >= wall,
        "{blocked} ns blocked + {waited} ns runnable + {cpu} ns on the CPU, measured {wall}"
    );
    let disk = |name: &str| name.starts_with("[blocked: disk");
    let right =
        off.count(|e| e.has("known_disk") && e.frames.first().is_some_and(|f| disk(&f.function.name)));
    expect::at_least(&off.list(|e| e.has("known_disk")), right, blocked, 98.0);
    let blocks = View::of_type(&profile, "blocks").count(|e| e.has("known_disk"));
    let missed = expect::hidden_switches(&profile);
    assert!(blocks <= waits && waits <= blocks + missed + 2, "{blocks} waits, {waits} to the kernel");
}

#[test]
fn a_disk_is_waited_for_by_the_account() {
    let (file, steal) = (File::new("accounted"), expect::steal_ticks());
    let program = workload::path("disk");
    let mut arguments = vec!["--".as_ref(), program.as_os_str()];
    arguments.extend(file.arguments().map(std::ffi::OsStr::new));
    let (accounts, said) = Accounts::and_said(&arguments);
    let Some([wall, cpu, _]) = times(&said) else {
        return skip("a_disk_is_waited_for_by_the_account", "no disk");
    };
    accounts.check();
    let row = accounts.thread(number(&said, "pid"));
    // Before, it made the file, which may have waited for the disk too, and slept.
    let (disk, sleep) = (blocked(row, "disk"), blocked(row, "sleep"));
    let slack = tolerance(wall, expect::steal_since_ns(steal))
        + number(row, "run_queue_ns")
        + number(row, "unknown_ns");
    assert!(disk + cpu + slack >= wall, "{disk} ns for the disk + {cpu} on the CPU, measured {wall}: {row}");
    assert!(sleep >= 400_000_000, "{row}");
}
