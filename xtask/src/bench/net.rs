//! What accounting of sockets costs where nothing else happens: requests, datagrams, connections and bulk data over the
//! loopback interface (`tests/workload/net_storm.c`).
//!
//! Each run under a profiler is compared with the runs of nothing before and after it. On a machine where these differ by more
//! than what is to be measured, the run time of the eBPF programs tells more, which the kernel measures. Beside this profiler are
//! those that are installed, start here and do the same: bytes by process, or lives of connections.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use ebpf_toolchain::on_path;

use super::{
    child::{Measured, RunTimes},
    page, stats,
};
use crate::{
    process::{Failure, capture, run, say},
    workspace,
};

/// A profiler is attached by then.
const START: Duration = Duration::from_millis(1500);
/// One that compiles its programs first is.
const OTHERS_START: Duration = Duration::from_secs(8);

/// What is done: the program's word, batches of one run (some half a second), and what it is called in the table.
const LOADS: &[(&str, &str, &str)] = &[
    ("requests", "20", "request and answer, TCP"),
    ("datagrams", "20", "request and answer, UDP"),
    ("connections", "20", "connection made, taken and closed"),
    ("bulk", "40", "64 KiB sent and received, TCP"),
];

/// What is measured: its name in the table, and the profiler's arguments.
const VIEWS: &[(&str, &[&str])] = &[
    ("`profiler net -a`", &["net", "--json", "-a"]),
    ("`profiler net -p` another process", &["net", "--json", "-p", "self"]),
    ("`profiler record -a -e net-tx,net-rx`", &["record", "-a", "-e", "net-tx,net-rx", "-o", "net.pb.gz"]),
];

/// The others: name in the table, program, arguments.
const OTHERS: &[(&str, &str, &[&str])] = &[
    ("libbpf-tools tcplife", "tcplife", &[]),
    ("bcc tcplife", "tcplife-bpfcc", &[]),
    (
        "bpftrace, bytes by process",
        "bpftrace",
        &[
            "-e",
            "tracepoint:sock:sock_send_length /args->ret > 0/ { @sent[pid] = sum(args->ret); } \
             tracepoint:sock:sock_recv_length /args->ret > 0/ { @received[pid] = sum(args->ret); }",
        ],
    ),
];

/// What is measured.
struct View {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
    start: Duration,
}

/// This profiler's, and those of the others that are installed.
fn views() -> Result<Vec<View>, Failure> {
    let program = workspace::release_binary()?;
    let own = VIEWS.iter().map(|&(name, arguments)| View {
        name,
        program: program.clone(),
        arguments,
        start: START,
    });
    let others = OTHERS.iter().filter_map(|&(name, program, arguments)| {
        Some(View { name, program: on_path(program)?, arguments, start: OTHERS_START })
    });
    Ok(own.chain(others).collect())
}

/// Values of all rounds.
#[derive(Default)]
struct Cell {
    added_ns: Vec<f64>,
    ebpf_ns: Vec<f64>,
    ratio: Vec<f64>,
}

/// What was measured: by load and view.
pub struct Net {
    views: Vec<View>,
    cells: Vec<Vec<Cell>>,
    base_ns: Vec<Vec<f64>>,
    rss_mib: Vec<Vec<f64>>,
}

/// Measures all loads and views in turn, in rounds.
pub fn measure(directory: &Path, rounds: usize) -> Result<Net, Failure> {
    let program = directory.join("net_storm");
    let source = workspace::root().join("tests/workload/net_storm.c");
    run(Command::new("gcc").arg("-O2").arg(&source).arg("-o").arg(&program))?;
    let views = views()?;
    let cells = || views.iter().map(|_| Cell::default()).collect();
    let mut net = Net {
        cells: LOADS.iter().map(|_| cells()).collect(),
        base_ns: vec![Vec::new(); LOADS.len()],
        rss_mib: vec![Vec::new(); views.len()],
        views,
    };
    let _run_times = RunTimes::measure()?;
    for round in 1..=rounds {
        say(format!("network, round {round} of {rounds}"));
        for at in 0..net.views.len() {
            net.view(at, &program, directory)?;
        }
    }
    Ok(net)
}

impl Net {
    fn view(&mut self, at: usize, program: &Path, directory: &Path) -> Result<(), Failure> {
        let View { program: profiler, arguments, start, .. } = &self.views[at];
        let before: Vec<Ran> = LOADS.iter().map(|load| ran(program, load)).collect::<Result<_, _>>()?;
        let own = std::process::id().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == "self" { &*own } else { argument });
        let mut command = Command::new(profiler);
        command.args(arguments);
        let (mut profiler, _) = Measured::start(&mut command, directory, 0)?;
        thread::sleep(*start);
        if !profiler.is_running() {
            say(format!("{} does not start here", self.views[at].name));
            return Ok(());
        }
        let mut with = Vec::new();
        for load in LOADS {
            let ebpf_ns = profiler.ebpf_ns();
            let ran = ran(program, load)?;
            let ebpf_ns = profiler.ebpf_ns().saturating_sub(ebpf_ns) as f64 / ran.operations;
            with.push((ran.operation_ns, ebpf_ns));
        }
        self.rss_mib[at].push(profiler.rss_mib());
        profiler.interrupt()?;
        for (load, (before, (with, ebpf_ns))) in before.into_iter().zip(with).enumerate() {
            let after = ran(program, &LOADS[load])?;
            let without = (before.operation_ns + after.operation_ns) / 2.0;
            let cell = &mut self.cells[load][at];
            cell.added_ns.push(with - without);
            cell.ebpf_ns.push(ebpf_ns);
            cell.ratio.push(with / without);
            self.base_ns[load].push(without);
        }
        Ok(())
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut rows = Vec::new();
        for ((cells, base), (_, _, load)) in self.cells.iter().zip(&self.base_ns).zip(LOADS) {
            let measured = cells.iter().zip(&self.views).filter(|(cell, _)| !cell.ratio.is_empty());
            for (cell, view) in measured {
                rows.push(vec![
                    (*load).to_owned(),
                    page::number(stats::median(base), 0),
                    view.name.to_owned(),
                    page::number(stats::median(&cell.ebpf_ns), 0),
                    page::number(stats::median(&cell.added_ns), 0),
                    page::number(stats::median(&cell.ratio), 2),
                ]);
            }
        }
        let head =
            ["network over loopback", "ns each without", "profiler", "eBPF ns each", "added ns", "ratio"];
        let rss: Vec<_> = self.rss_mib.iter().map(|values| page::number(stats::median(values), 0)).collect();
        format!(
            "\nNetwork: two processes, as fast as they can (`tests/workload/net_storm.c`); both are looked at. RSS: {} MiB.\n\n{}",
            rss.join(", "),
            page::table(&head, &rows)
        )
    }
}

/// What a load did.
struct Ran {
    /// Time of an operation, ns: of the tenth of the batches that were fastest, the longest.
    operation_ns: f64,
    /// Their number.
    operations: f64,
}

fn ran(program: &Path, (mode, batches, _): &(&str, &str, &str)) -> Result<Ran, Failure> {
    let text = capture(Command::new(program).args([mode, batches]))?;
    let said: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
    let number = |key: &str| said.as_ref().and_then(|said| said[key].as_f64());
    let ran = number("operation_ns").zip(number("operations"));
    let ran = ran.map(|(operation_ns, operations)| Ran { operation_ns, operations });
    ran.ok_or_else(|| Failure::new(format!("{} said: {text}", program.display())))
}
