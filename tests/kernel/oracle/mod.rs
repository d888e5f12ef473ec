//! Stacks of real programs, none of them built with frame pointers: our walk against that of an independent unwinder,
//! frame by frame, on the same registers and memory.

mod code;
mod samples;
mod walk;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use profiler::unwind::table::Table;
use profiler_common::{stack::WalkEnd, unwind::rule::Kind};
use profiler_tests::skip::skip;

use self::{
    code::{Process, Processes},
    samples::{Event, STACK_BYTES, Sample},
    walk::{Reference, Walk},
};

/// Frames that must be the same, percent. (The rest: where either of the two gives up, and the other does not.)
const SAME: f64 = 99.0;
/// Stacks that must lead to the thread's first function, percent.
const COMPLETE: f64 = 98.0;
/// Fewer samples than this are no test.
const MIN_SAMPLES: u64 = 100;

/// What was found of a program.
#[derive(Default)]
struct Comparison {
    samples: u64,
    /// Samples that went through code that the program made itself, and whose stack was larger than the copy.
    left_out: u64,
    frames: u64,
    same: u64,
    complete: u64,
    complete_there: u64,
    ends: BTreeMap<String, u64>,
    /// Where the two differ, and how often.
    differences: BTreeMap<String, u64>,
}

impl Comparison {
    fn of(events: &[Event], damage: fn(&mut Table)) -> Self {
        let mut found = Self::default();
        let mut processes = Processes::new(damage);
        let mut references: BTreeMap<u32, (u64, Reference)> = BTreeMap::new();
        for event in events {
            match event {
                Event::Process(event) => processes.observe(event),
                Event::Sample(sample) => {
                    let Some(process) = processes.get(sample.pid) else { continue };
                    let new = || (process.version, Reference::new(process));
                    let reference = references.entry(sample.pid).or_insert_with(new);
                    if reference.0 != process.version {
                        *reference = new();
                    }
                    found.add(sample, process, &mut reference.1);
                }
            }
        }
        found
    }

    fn add(&mut self, sample: &Sample, process: &Process, reference: &mut Reference) {
        let ours = walk::ours(sample, process);
        let (theirs, is_complete) = reference.walk(sample);
        let is_cut = ours.end == WalkEnd::BadRead && sample.stack.len() + 4096 > STACK_BYTES as usize;
        if ours.is_jit || is_cut {
            self.left_out += 1;
            return;
        }
        self.samples += 1;
        let same = ours.frames.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        self.frames += ours.frames.len().max(theirs.len()) as u64;
        self.same += same as u64;
        self.complete += u64::from(ours.end == WalkEnd::Complete);
        self.complete_there += u64::from(is_complete);
        *self.ends.entry(format!("{:?}", ours.end)).or_default() += 1;
        if same < ours.frames.len().max(theirs.len()) || ours.end != WalkEnd::Complete {
            *self.differences.entry(difference(&ours, &theirs, same, process)).or_default() += 1;
        }
    }

    fn percent(part: u64, whole: u64) -> f64 {
        100.0 * part as f64 / whole.max(1) as f64
    }

    fn report(&self, name: &str) -> String {
        let Self { samples, left_out, frames, .. } = self;
        let same = Self::percent(self.same, self.frames);
        let complete = Self::percent(self.complete, self.samples);
        let there = Self::percent(self.complete_there, self.samples);
        let mut out = format!(
            "{name}: {samples} samples ({left_out} left out), {frames} frames, {same:.2} % the same; \
             complete: {complete:.2} % here, {there:.2} % there; ends {:?}\n",
            self.ends
        );
        let mut differences: Vec<_> = self.differences.iter().collect();
        differences.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (what, count) in differences.into_iter().take(8) {
            _ = writeln!(out, "  {count:5} {what}");
        }
        out
    }

    fn check(&self, name: &str) {
        let report = self.report(name);
        println!("{report}");
        assert!(self.samples >= MIN_SAMPLES, "too few samples: {report}");
        assert!(Self::percent(self.same, self.frames) >= SAME, "frames differ: {report}");
        assert!(Self::percent(self.complete, self.samples) >= COMPLETE, "stacks are cut: {report}");
    }
}

/// Where the last frame that both have is, in words.
fn difference(ours: &Walk, theirs: &[u64], same: usize, process: &Process) -> String {
    let place = |address: u64| match process.mapping(address) {
        Some(mapping) => {
            let name = mapping.code.as_ref().map_or("(anonymous)", |code| code.name.as_str());
            format!("{name}+{:#x}", address.wrapping_sub(mapping.bias))
        }
        None => format!("{address:#x}"),
    };
    let next = |frames: &[u64]| frames.get(same).map_or("nothing".to_owned(), |&address| place(address));
    let last = same.checked_sub(1).and_then(|at| ours.frames.get(at)).copied().unwrap_or_default();
    format!(
        "behind frame {same}, {}: here {}, there {}; here the end is {:?}",
        place(last),
        next(&ours.frames),
        next(theirs),
        ours.end
    )
}

/// Records a program and compares. A program that is not installed is a listed skip.
fn compare(test: &str, program: &str, arguments: &[&str]) {
    if is_there(test, program) {
        let events = samples::record(program, arguments);
        Comparison::of(&events, |_| ()).check(test);
    }
}

/// Whether a program is installed; if it is not, that is a listed skip.
fn is_there(test: &str, program: &str) -> bool {
    let is_there = Path::new(program).exists();
    if !is_there {
        skip(test, &format!("{program} is not installed"));
    }
    is_there
}

/// The most used kind of rules is off by a word.
fn off_by_a_word(table: &mut Table) {
    for rule in table.rules.iter_mut().filter(|rule| **rule & 0xf == Kind::Sp as u64) {
        // Bits 8 to 31 are the offset of the CFA.
        *rule = rule.wrapping_add(8 << 8);
    }
}

#[test]
fn oracle_compiler() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.cpp");
    let text = "#include <iostream>\n#include <map>\n#include <regex>\n\
                int main(int n, char **v) {\n\
                std::map<std::string, std::regex> all;\n\
                for (int i = 0; i < n; i++) all.emplace(v[i], std::regex(v[i]));\n\
                for (auto &[name, regex] : all) std::cout << std::regex_match(name, regex);\n}\n";
    fs::write(&source, text).unwrap();
    let object = dir.path().join("source.o");
    let (source, object) = (source.to_str().unwrap(), object.to_str().unwrap());
    compare("oracle_compiler", "/usr/bin/g++", &["-O2", "-c", source, "-o", object]);
}

const PYTHON: &str = "
import json, re
data = {str(n): [n, str(n) * 3, {'x': n}] for n in range(4000)}
def nest(depth):
    return json.loads(json.dumps(data)) if depth == 0 else nest(depth - 1)
for _ in range(100):
    again = nest(10)
    text = json.dumps(again)
    re.findall(r'(\\d+), \"\\d+', text)
    sorted(again.items(), key=lambda item: item[1][1])
";

#[test]
fn oracle_interpreter() {
    compare("oracle_interpreter", "/usr/bin/python3", &["-c", PYTHON]);
}

#[test]
fn oracle_compressor() {
    let input = own_executable_part(3 << 20);
    compare("oracle_compressor", "/usr/bin/xz", &["-c", "-6", "-T1", input.path().to_str().unwrap()]);
}

const SQL: &str = "
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
SELECT count(DISTINCT printf('%05d', i * 7919 % 100003)), sum(length(hex(i))), max(i % 97) FROM n;
CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
INSERT INTO t SELECT i, printf('%d', i * 31 % 1009) FROM n;
CREATE INDEX b ON t (b);
SELECT count(*) FROM t AS x JOIN t AS y ON x.b = y.b WHERE x.a < 3000;
";

#[test]
fn oracle_database() {
    compare("oracle_database", "/usr/bin/sqlite3", &[":memory:", SQL]);
}

/// What of a Java program's stacks is native code alone: the start of the machine, its compilers and collectors. Several of
/// them, which are over soon.
#[test]
fn oracle_java() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("Main.java");
    fs::write(&source, "class Main { public static void main(String[] a) { System.out.println(1); } }\n")
        .unwrap();
    let (javac, dir) = ("/usr/bin/javac", dir.path().to_str().unwrap());
    if !is_there("oracle_java", javac) {
        return;
    }
    let script = "for _ in 1 2 3 4; do \"$@\" || exit; done";
    compare("oracle_java", "/bin/sh", &["-c", script, "sh", javac, "-d", dir, source.to_str().unwrap()]);
}

/// Hand-written code: the hash keeps its caller's stack pointer on its own stack. (ChaCha20 keeps it in a register that is
/// not followed, and some of OpenSSL's other functions have unwind information that neither unwinder gets through.)
#[test]
fn oracle_cipher() {
    let arguments = ["speed", "-seconds", "4", "-bytes", "8192", "-evp", "sha256"];
    compare("oracle_cipher", "/usr/bin/openssl", &arguments);
}

/// The control: the comparison can fail.
#[test]
fn oracle_notices_a_wrong_rule() {
    let input = own_executable_part(1 << 20);
    let program = "/usr/bin/xz";
    if !is_there("oracle_notices_a_wrong_rule", program) {
        return;
    }
    let events = samples::record(program, &["-c", "-6", "-T1", input.path().to_str().unwrap()]);
    let right = Comparison::of(&events, |_| ());
    let wrong = Comparison::of(&events, off_by_a_word);
    let same = |comparison: &Comparison| Comparison::percent(comparison.same, comparison.frames);
    assert!(same(&right) >= SAME, "{}", right.report("right"));
    assert!(same(&wrong) < 60.0, "{}", wrong.report("wrong"));
}

/// Bytes that are neither random nor all alike: code.
fn own_executable_part(len: usize) -> tempfile::NamedTempFile {
    let mut bytes = fs::read("/proc/self/exe").unwrap();
    bytes.truncate(len);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    file
}
