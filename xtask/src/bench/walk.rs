//! What walking a user stack costs, by its depth: by frame pointers, by unwind tables, and by `perf record
//! --call-graph dwarf`, which copies the stack for later.
//!
//! A program sits below 20, 60 and 120 calls, on every CPU, built with and without frame pointers
//! (`tests/workload/shapes.c`). Recordings are of these processes only. What the eBPF programs take for ticks that hit
//! others is measured by a recording that wants no process at all, and subtracted: `cost` has the sum of all ticks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ebpf_toolchain::on_path;

use super::{child::Measured, own::Own, page, stats};
use crate::{
    process::{Failure, capture, run, say, succeeds},
    workspace,
};

/// Calls that the program sits below.
const DEPTHS: [u32; 3] = [20, 60, 120];
/// More samples in less time than at 99 Hz; the cost of one is the same.
const HZ: &str = "999";
/// Of the program's threads, for `--comm`.
const NAME: &str = "shapes";
/// A name that no thread has.
const NOBODY: &str = "nobody-has-this";

/// How stacks are walked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FramePointers,
    Tables,
}

/// One depth: a value per round.
#[derive(Default)]
struct Depth {
    /// Run time of the eBPF programs per sample, ns.
    frame_pointers_ns: Vec<f64>,
    tables_ns: Vec<f64>,
    /// CPU time of the profiler per 1,000 samples, ms.
    own_ms: Vec<f64>,
    /// The same of perf, and what it writes per sample, bytes.
    perf_ms: Vec<f64>,
    perf_bytes: Vec<f64>,
}

/// What was measured.
pub struct Walk {
    depths: Vec<Depth>,
    /// Of a tick that is filtered out, ns.
    filtered_ns: Vec<f64>,
    rounds: usize,
    /// Why perf is not measured, if it is not.
    without_perf: Option<String>,
}

/// The programs.
struct Programs {
    framed: PathBuf,
    bare: PathBuf,
}

/// A walk under measurement.
struct Bench<'a> {
    directory: &'a Path,
    cpus: usize,
    time: Duration,
    programs: Programs,
    profiler: PathBuf,
    perf: Option<PathBuf>,
}

/// Measures all depths in turn, in rounds. `time`: CPU time of the program in each recording.
pub fn measure(directory: &Path, cpus: usize, rounds: usize, time: Duration) -> Result<Walk, Failure> {
    let perf = on_path("perf").filter(|perf| succeeds(Command::new(perf).arg("--help")));
    let without_perf = perf.is_none().then(|| "perf is not installed or does not run".to_owned());
    let profiler = workspace::release_binary()?;
    let bench = Bench { directory, cpus, time, programs: build(directory)?, profiler, perf };
    let depths = DEPTHS.iter().map(|_| Depth::default()).collect();
    let mut walk = Walk { depths, filtered_ns: Vec::new(), rounds, without_perf };
    for round in 1..=rounds {
        say(format!("walks, round {round} of {rounds}"));
        bench.round(&mut walk)?;
    }
    Ok(walk)
}

/// The program with and without frame pointers, under the same name.
fn build(directory: &Path) -> Result<Programs, Failure> {
    let source = workspace::root().join("tests/workload/shapes.c");
    let compile = |kind: &str, flags: &[&str]| {
        let place = directory.join(kind);
        fs::create_dir_all(&place).map_err(|e| Failure::io(&place, &e))?;
        let program = place.join(NAME);
        let mut compiler = Command::new("gcc");
        compiler.args(["-O2", "-fno-optimize-sibling-calls", "-pthread"]).args(flags);
        run(compiler.arg(&source).arg("-o").arg(&program))?;
        Ok(program)
    };
    Ok(Programs {
        framed: compile("framed", &["-fno-omit-frame-pointer"])?,
        bare: compile("bare", &["-fomit-frame-pointer", "-DNO_FRAMES"])?,
    })
}

impl Bench<'_> {
    fn round(&self, walk: &mut Walk) -> Result<(), Failure> {
        let nobody = self.record(NOBODY, Way::Tables, DEPTHS[0])?;
        let filtered_ns = nobody.ebpf_ns / nobody.ticks;
        walk.filtered_ns.push(filtered_ns);
        for (depth, calls) in walk.depths.iter_mut().zip(DEPTHS) {
            let framed = self.record(NAME, Way::FramePointers, calls)?;
            let tables = self.record(NAME, Way::Tables, calls)?;
            depth.frame_pointers_ns.push(framed.per_sample_ns(filtered_ns));
            depth.tables_ns.push(tables.per_sample_ns(filtered_ns));
            depth.own_ms.push(1e6 * tables.cpu_s / tables.samples);
            let Some(perf) = self.perf.as_ref().filter(|_| walk.without_perf.is_none()) else { continue };
            match self.perf(perf, calls) {
                Ok((ms, bytes)) => {
                    depth.perf_ms.push(ms);
                    depth.perf_bytes.push(bytes);
                }
                // It is a foreign program, and one of another kernel's version may fail.
                Err(error) => walk.without_perf = Some(error.to_string()),
            }
        }
        Ok(())
    }

    /// A recording of the threads of a name, of the program below so many calls.
    fn record(&self, comm: &str, way: Way, calls: u32) -> Result<Own, Failure> {
        let (unwind, program) = match way {
            Way::FramePointers => ("fp", &self.programs.framed),
            Way::Tables => ("auto", &self.programs.bare),
        };
        let mut command = Command::new(&self.profiler);
        command.args(["record", "-a", "-F", HZ, "--comm", comm, "--unwind", unwind, "-o", "walk.pb.gz"]);
        let (child, _) = Measured::start(&mut command, self.directory, 2 * self.cpus)?;
        self.run(program, calls)?;
        child.interrupt()?;
        let own = Own::of_recording(self.directory, "walk.pb.gz")?;
        if comm == NAME && own.samples < 1.0 {
            return Err(Failure::new("a recording of the walks has no samples"));
        }
        Ok(own)
    }

    /// CPU time of perf per 1,000 samples, ms, and its bytes per sample.
    fn perf(&self, perf: &Path, calls: u32) -> Result<(f64, f64), Failure> {
        let mut command = Command::new(perf);
        // Without -B, perf 6.1 reads all it has recorded again at the end, for build ids, and crashes on some machines.
        command.args(["record", "-B", "-a", "-F", HZ, "-e", "cpu-clock"]);
        command.args(["--call-graph", "dwarf", "-o", "walk.data"]);
        let (child, _) = Measured::start(&mut command, self.directory, self.cpus)?;
        self.run(&self.programs.bare, calls)?;
        let used = child.interrupt()?;
        let mut stats = Command::new(perf);
        let said = capture(stats.current_dir(self.directory).args(["report", "--stats", "-i", "walk.data"]))?;
        let samples =
            perf_samples(&said).ok_or_else(|| Failure::new("perf does not say how many samples it has"))?;
        let data = self.directory.join("walk.data");
        let bytes = fs::metadata(&data).map_err(|e| Failure::io(&data, &e))?.len();
        Ok((1e6 * used.cpu_s / samples, bytes as f64 / samples))
    }

    /// The program on every CPU, to its end.
    fn run(&self, program: &Path, calls: u32) -> Result<(), Failure> {
        let failure = |e: std::io::Error| Failure::new(format!("{}: {e}", program.display()));
        let mut children: Vec<Child> = Vec::new();
        for _ in 0..self.cpus {
            let mut command = Command::new(program);
            command.args([format!("deep-{calls}"), self.time.as_millis().to_string()]);
            children.push(command.stdout(Stdio::null()).spawn().map_err(failure)?);
        }
        children.into_iter().try_for_each(|mut child| child.wait().map(|_| ()).map_err(failure))
    }
}

/// The number of samples that `perf report --stats` tells of all events together: `SAMPLE events:  1234  (45.9%)`.
fn perf_samples(said: &str) -> Option<f64> {
    said.split_once("SAMPLE events:")?.1.split_whitespace().next()?.parse().ok()
}

impl Walk {
    /// Run time of a walk by tables less one by frame pointers, ns per frame: between the least and the greatest depth,
    /// so that what a sample costs at any depth is not in it.
    fn added_per_frame_ns(&self) -> Option<f64> {
        let added =
            |depth: &Depth| Some(stats::median(&depth.tables_ns)? - stats::median(&depth.frame_pointers_ns)?);
        let (first, last) = (self.depths.first()?, self.depths.last()?);
        Some((added(last)? - added(first)?) / f64::from(DEPTHS[DEPTHS.len() - 1] - DEPTHS[0]))
    }

    /// The table and what is to be known of it.
    pub fn table(&self) -> String {
        let row = |(depth, calls): (&Depth, u32)| {
            let (by_tables, framed) =
                (stats::median(&depth.tables_ns), stats::median(&depth.frame_pointers_ns));
            let added = by_tables.zip(framed).map(|(tables, framed)| tables - framed);
            vec![
                calls.to_string(),
                page::number(framed, 0),
                page::number(by_tables, 0),
                page::number(added, 0),
                page::number(added.map(|added| added / f64::from(calls)), 0),
                page::number(stats::median(&depth.own_ms), 1),
                page::number(stats::median(&depth.perf_ms), 1),
                page::number(stats::median(&depth.perf_bytes), 0),
            ]
        };
        let rows: Vec<_> = self.depths.iter().zip(DEPTHS).map(row).collect();
        let head = [
            "calls",
            "eBPF ns per sample, frame pointers",
            "eBPF ns per sample, unwind tables",
            "added ns",
            "added ns per call",
            "profiler: CPU ms per 1,000 samples",
            "perf record --call-graph dwarf: CPU ms per 1,000 samples",
            "and bytes per sample",
        ];
        let mut text = format!(
            "\nWalks: medians of {} runs, `tests/workload/shapes.c` below so many calls on every CPU, {HZ} Hz. Each further \
             frame takes {} ns more by tables than by frame pointers. A tick that is filtered out takes {} ns.\n\n{}",
            self.rounds,
            page::number(self.added_per_frame_ns(), 0),
            page::number(stats::median(&self.filtered_ns), 0),
            page::table(&head, &rows)
        );
        if let Some(why) = &self.without_perf {
            text.push_str(&format!(
                "\nperf record --call-graph dwarf was not measured, or not in all rounds: {why}.\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_says_how_many_samples_it_has() {
        let said = "Aggregated stats:\n          SAMPLE events:       1234  (45.9%)\ncpu-clock stats:\n";
        assert_eq!(perf_samples(said), Some(1234.0));
        assert_eq!(perf_samples("failed"), None);
    }

    #[test]
    fn a_frame_s_cost_is_the_slope() {
        let depth = |framed, tables| Depth {
            frame_pointers_ns: vec![framed],
            tables_ns: vec![tables],
            ..Depth::default()
        };
        let depths = vec![depth(1000.0, 4000.0), depth(2000.0, 9000.0), depth(3000.0, 16_000.0)];
        let walk = Walk { depths, filtered_ns: vec![], rounds: 1, without_perf: None };
        assert_eq!(walk.added_per_frame_ns(), Some(100.0));
        assert!(walk.table().contains("| 20 | 1000 | 4000 | 3000 | 150 | - | - | - |"));
    }
}
