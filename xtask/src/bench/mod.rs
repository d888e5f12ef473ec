//! `cargo xtask bench`: what this profiler costs, beside the others that are installed, and against its budgets.
//!
//! All profilers sample the whole machine at 99 Hz with stacks. Measurements are interleaved (nothing, one profiler,
//! nothing, the next one ...), and a run is compared with its two neighbours, so that what changes slowly on the
//! machine meets all alike; a run of nothing that takes a profiler's place tells the noise. Medians are shown. The
//! tables go to docs/performance.md.
//!
//! The walk of user stacks ([`walk`]), the making of unwind tables ([`loading`]) and the accounting of switches
//! ([`storm`]), of system calls ([`calls`]) and of sockets ([`net`]) are measured apart.

mod budget;
mod calls;
mod child;
mod daemon;
mod java;
mod java_large;
mod java_walk;
mod load;
mod loading;
mod net;
mod own;
mod page;
mod stats;
mod storm;
mod tools;
mod walk;

use std::{
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::{
    document,
    process::{Failure, is_root, say},
    run::build_release,
};
use budget::Long;
use child::Measured;
use own::Own;
use tools::Tool;

/// A part that can be measured alone.
const NETWORK: &str = "network";
/// One that is measured alone only: it takes as long as all others.
const JAVA: &str = "java";
/// Another one.
const DAEMON: &str = "daemon";

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    /// Runs under each profiler.
    rounds: usize,
    /// Length of a run.
    run: Duration,
    /// Length of the recordings of compilations and of a browser.
    long: Duration,
    /// CPU time of the program in each recording of walks.
    walk: Duration,
}

const QUICK: Extent = Extent {
    rounds: 3,
    run: Duration::from_secs(2),
    long: Duration::from_secs(12),
    walk: Duration::from_secs(1),
};
const FULL: Extent = Extent {
    rounds: 9,
    run: Duration::from_secs(5),
    long: Duration::from_secs(30),
    walk: Duration::from_secs(2),
};

/// What one profiler used, a value per round.
#[derive(Default)]
struct Samples {
    slowdown: Vec<f64>,
    start_s: Vec<f64>,
    recording_cpu_percent: Vec<f64>,
    total_cpu_s: Vec<f64>,
    recording_rss_mib: Vec<f64>,
    peak_rss_mib: Vec<f64>,
    exit_s: Vec<f64>,
    report_s: Vec<f64>,
    /// Run time of this profiler's eBPF programs, percent of one core.
    ebpf_percent: Vec<f64>,
}

/// The longer recordings.
struct LongRuns {
    /// Compilations, of each profiler.
    warm: Vec<Long>,
    cold: Long,
    browser: Option<Long>,
}

/// Measures and writes the tables. `quick`: in some six minutes. `only`: a part, whose table is printed.
///
/// # Errors
/// Not root, no such part, a program that fails, or a budget that is not kept (the tables are written all the same).
pub fn bench(quick: bool, only: Option<&str>) -> Result<(), Failure> {
    if let Some(part) = only.filter(|part| ![NETWORK, JAVA, DAEMON].contains(part)) {
        let known =
            format!("--only {part}: what can be measured alone is `{NETWORK}`, `{JAVA}` and `{DAEMON}`");
        return Err(Failure::usage(known));
    }
    if !is_root() {
        return Err(Failure::new(
            "profilers of the whole machine need root: run `cargo xtask bench` as root",
        ));
    }
    build_release()?;
    let directory = scratch()?;
    let extent = if quick { QUICK } else { FULL };
    let result = match only {
        Some(JAVA) => java::measure(&directory, extent.rounds).and_then(|java| match java {
            Some(java) => {
                print!("{}", java.table());
                Ok(())
            }
            None => Err(Failure::new("no JDK is installed")),
        }),
        Some(DAEMON) => daemon::measure(&directory, quick),
        Some(_) => net::measure(&directory, extent.rounds).map(|net| print!("{}", net.table())),
        None => Bench::new(&directory, extent).and_then(|bench| bench.run(quick)),
    };
    _ = fs::remove_dir_all(&directory);
    result
}

fn scratch() -> Result<PathBuf, Failure> {
    let path = env::temp_dir().join(format!("profiler-bench-{}", std::process::id()));
    fs::create_dir_all(&path).map_err(|e| Failure::io(&path, &e))?;
    Ok(path)
}

/// A bench that is set up.
struct Bench<'a> {
    directory: &'a Path,
    extent: Extent,
    cpus: usize,
    program: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(directory: &'a Path, extent: Extent) -> Result<Self, Failure> {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { directory, extent, cpus, program: load::throughput_program(directory)? })
    }

    fn run(&self, quick: bool) -> Result<(), Failure> {
        let (tools, missing) = tools::all()?;
        for name in &missing {
            say(format!("not measured: {name} is not installed or does not run"));
        }
        let command = if quick { "cargo xtask bench --quick" } else { "cargo xtask bench" };
        let mut text = document::circumstances(command, self.cpus)?;
        let (samples, noise) = self.compare(&tools)?;
        let long = self.long_runs(&tools)?;
        let walk = walk::measure(self.directory, self.cpus, self.extent.rounds, self.extent.walk)?;
        let loading = loading::measure(self.extent.rounds)?;
        let storm = storm::measure(self.directory, self.extent.rounds)?;
        let calls = calls::measure(self.directory, self.extent.rounds)?;
        let net = net::measure(self.directory, self.extent.rounds)?;
        let budgets = budget::of(&budget::Measurements {
            counting: &samples[0],
            warm: &long.warm[0],
            cold: &long.cold,
            browser: long.browser.as_ref(),
            loading: &loading,
            storm: &storm,
            calls: &calls,
        });
        text.push('\n');
        text.push_str(&budget::table(&budgets));
        text.push_str(&self.comparison(&tools, &samples, &noise));
        text.push_str(&self.compilations(&tools, &long.warm));
        text.push_str(&walk.table());
        text.push_str(&loading.table());
        text.push_str(&storm.table());
        text.push_str(&calls.table());
        text.push_str(&net.table());
        for name in missing {
            text.push_str(&format!("\nNot measured: {name}, which was not installed or did not run.\n"));
        }
        print!("{text}");
        document::write("docs/performance.md", "bench", &text)?;
        budget::check(&budgets)
    }

    /// All profilers in turn, what each used; and the slowdowns of runs of nothing.
    fn compare(&self, tools: &[Tool]) -> Result<(Vec<Samples>, Vec<f64>), Failure> {
        let mut samples: Vec<Samples> = tools.iter().map(|_| Samples::default()).collect();
        let mut noise = Vec::new();
        let mut before = self.throughput()?;
        for round in 1..=self.extent.rounds {
            say(format!("round {round} of {}", self.extent.rounds));
            for (tool, samples) in tools.iter().zip(&mut samples) {
                let with = self.measure(tool, samples)?;
                let after = self.throughput()?;
                samples.slowdown.push(stats::slowdown(before, with, after));
                before = after;
            }
            let (nothing, after) = (self.throughput()?, self.throughput()?);
            noise.push(stats::slowdown(before, nothing, after));
            before = after;
        }
        Ok((samples, noise))
    }

    fn throughput(&self) -> Result<f64, Failure> {
        load::throughput(&self.program, self.cpus, self.extent.run)
    }

    /// One run of the counting loop under a profiler; its throughput.
    fn measure(&self, tool: &Tool, samples: &mut Samples) -> Result<f64, Failure> {
        let (child, start) = Measured::start(&mut tool.command(), self.directory, tool.events(self.cpus))?;
        let (cpu, begun) = (child.cpu_s(), Instant::now());
        let throughput = self.throughput()?;
        let share = (child.cpu_s() - cpu) / begun.elapsed().as_secs_f64();
        samples.start_s.push(start.as_secs_f64());
        samples.recording_cpu_percent.push(100.0 * share);
        samples.recording_rss_mib.push(child.rss_mib());
        let used = child.interrupt()?;
        samples.total_cpu_s.push(used.cpu_s);
        samples.peak_rss_mib.push(used.peak_rss_mib);
        samples.exit_s.push(used.exit_s);
        samples.ebpf_percent.extend(self.ebpf_percent(tool)?);
        if let Some(mut report) = tool.show(self.directory) {
            let begun = Instant::now();
            let status = report.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.map_err(|e| Failure::new(format!("{}: {e}", tool.name)))?;
            samples.report_s.push(begun.elapsed().as_secs_f64());
        }
        Ok(throughput)
    }

    /// A recording of this profiler while `load` runs; Ctrl-C then comes with warm or empty caches.
    fn long(&self, tool: &Tool, load: impl Fn() -> Result<(), Failure>, cold: bool) -> Result<Long, Failure> {
        let (child, _) = Measured::start(&mut tool.command(), self.directory, tool.events(self.cpus))?;
        let (cpu, begun) = (child.cpu_s(), Instant::now());
        load()?;
        let cpu_percent = 100.0 * (child.cpu_s() - cpu) / begun.elapsed().as_secs_f64();
        let recording_rss_mib = child.rss_mib();
        if cold {
            load::drop_caches()?;
        }
        let used = child.interrupt()?;
        let ebpf_percent = self.ebpf_percent(tool)?;
        let (peak_rss_mib, exit_s) = (used.peak_rss_mib, used.exit_s);
        Ok(Long { cpu_percent, recording_rss_mib, peak_rss_mib, exit_s, ebpf_percent })
    }

    /// Run time of the eBPF programs of the recording that this profiler has just written.
    fn ebpf_percent(&self, tool: &Tool) -> Result<Option<f64>, Failure> {
        tool.recording().map(|file| Ok(Own::of_recording(self.directory, file)?.ebpf_percent())).transpose()
    }

    /// Compilations under every profiler, then this one with empty caches, and with a browser.
    fn long_runs(&self, tools: &[Tool]) -> Result<LongRuns, Failure> {
        let time = self.extent.long;
        let compile = || load::compile(self.directory, time).map(|_| ());
        say("compilations, with files in the page cache");
        // Once before, so that they are.
        load::compile(self.directory, Duration::ZERO)?;
        let warm = tools.iter().map(|tool| self.long(tool, compile, false)).collect::<Result<_, _>>()?;
        say("compilations, with an empty page cache");
        let cold = self.long(&tools[0], compile, true)?;
        say("a browser");
        let is_there = Cell::new(false);
        let browse = || load::browse(self.directory, time / 2).map(|there| is_there.set(there));
        let browser = self.long(&tools[0], browse, false)?;
        Ok(LongRuns { warm, cold, browser: is_there.get().then_some(browser) })
    }

    fn comparison(&self, tools: &[Tool], samples: &[Samples], noise: &[f64]) -> String {
        let percent = |value: Option<f64>| page::number(value.map(|value| 100.0 * value), 2);
        let row = |tool: &Tool, s: &Samples| {
            vec![
                tool.title(),
                page::number(stats::median(&s.start_s), 2),
                page::number(stats::median(&s.recording_cpu_percent), 2),
                page::number(stats::median(&s.total_cpu_s), 2),
                page::number(stats::median(&s.recording_rss_mib), 0),
                page::number(stats::median(&s.peak_rss_mib), 0),
                page::number(stats::median(&s.exit_s), 2),
                page::number(stats::median(&s.report_s), 2),
                percent(stats::median(&s.slowdown)),
            ]
        };
        let mut rows: Vec<_> = tools.iter().zip(samples).map(|(tool, samples)| row(tool, samples)).collect();
        let mut nothing = vec!["nothing (largest noise)".to_owned()];
        nothing.extend(std::iter::repeat_n("-".to_owned(), 7));
        let size: Vec<f64> = noise.iter().map(|slowdown| slowdown.abs()).collect();
        nothing.push(format!("+- {}", percent(stats::largest(&size))));
        rows.push(nothing);
        let head = [
            "99 Hz, whole machine",
            "start s",
            "CPU % of one core while recording",
            "CPU s from start to end",
            "RSS MiB while recording",
            "peak RSS MiB",
            "Ctrl-C to end s",
            "then to names s",
            "workload slower by %",
        ];
        format!(
            "\nMedians of {} runs of {} s each, the counting loop (`tests/workload/throughput.c`) on every CPU.\n\n{}",
            self.extent.rounds,
            self.extent.run.as_secs(),
            page::table(&head, &rows)
        )
    }

    fn compilations(&self, tools: &[Tool], runs: &[Long]) -> String {
        let row = |(tool, run): (&Tool, &Long)| {
            vec![
                tool.title(),
                page::number(Some(run.cpu_percent), 2),
                page::number(Some(run.recording_rss_mib), 0),
                page::number(Some(run.peak_rss_mib), 0),
                page::number(Some(run.exit_s), 2),
            ]
        };
        let rows: Vec<_> = tools.iter().zip(runs).map(row).collect();
        let head = [
            "99 Hz, whole machine",
            "CPU % of one core while recording",
            "RSS MiB while recording",
            "peak RSS MiB",
            "Ctrl-C to end s",
        ];
        let seconds = self.extent.long.as_secs();
        format!(
            "\nOne run of {seconds} s each, compilations one after the other.\n\n{}",
            page::table(&head, &rows)
        )
    }
}
