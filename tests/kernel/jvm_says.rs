//! What a JVM itself says that its code is: its perf map (from JDK 17 on), and the log of its compilers (every version). And
//! where it says that its threads are.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::Path,
};

use profiler::symbolize::runtime::jvm::java_names;
use profiler_tests::jdk::Jdk;

/// Address, length and name of all code, by `jcmd PID Compiler.perfmap`.
pub fn perf_map(jdk: &Jdk, pid: u32) -> BTreeMap<u64, (u64, String)> {
    // The name of the file is that of the process id: one that is there is an old one.
    let path = format!("/tmp/perf-{pid}.map");
    let output = jdk.tool("jcmd").arg(pid.to_string()).arg("Compiler.perfmap").output().unwrap();
    let map = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}: {output:?}"));
    fs::remove_file(&path).unwrap();
    let entry = |line: &str| -> (u64, (u64, String)) {
        let mut parts = line.splitn(3, ' ');
        let mut number = || {
            let digits = parts.next().unwrap();
            u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).unwrap()
        };
        (number(), (number(), parts.next().unwrap().to_owned()))
    };
    map.lines().map(entry).collect()
}

/// A compilation by a JVM's log.
#[derive(Debug, PartialEq, Eq)]
pub struct Logged {
    /// Address of what it was put into.
    pub blob: u64,
    /// The size of that, bytes.
    pub size: u64,
    /// First instruction.
    pub code_begin: u64,
    /// Tier; 0: the bridge to a native method.
    pub level: u8,
    /// Entered in the middle of a loop.
    pub osr: bool,
    /// The method with its types, as `Method::external` gives it, but for [`without_addresses`].
    pub method: String,
}

/// A name without the addresses of hidden classes: the log separates them in another way, and of JDK 11 and before it has
/// some that the class's own name lacks.
pub fn without_addresses(name: &str) -> String {
    let mut parts = name.split("0x");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.truncate(out.trim_end_matches(['/', '.', '+']).len());
        out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    out
}

/// Compilations by their numbers, and the numbers of those that have ended.
#[derive(Debug, Default)]
pub struct CompileLog {
    /// All that there were.
    pub compilations: HashMap<i32, Logged>,
    /// Those that were thrown away: they may be gone.
    pub ended: HashSet<i32>,
}

impl CompileLog {
    /// The options that have a JVM write it.
    pub fn options(path: &Path) -> [String; 3] {
        let file = format!("-XX:LogFile={}", path.display());
        ["-XX:+UnlockDiagnosticVMOptions".to_owned(), "-XX:+LogCompilation".to_owned(), file]
    }

    /// Reads that of a JVM that has ended: it is written whole only then.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut log = Self::default();
        for line in text.lines() {
            let ended = line.starts_with("<make_not_entrant ")
                || line.starts_with("<make_zombie ")
                || line.starts_with("<make_unloaded ")
                || line.starts_with("<make_not_used ");
            if ended {
                log.ended.insert(number(line, "compile_id") as i32);
            } else if line.starts_with("<nmethod ") {
                log.compilations.insert(number(line, "compile_id") as i32, Logged::of(line));
            }
        }
        log
    }
}

impl Logged {
    fn of(line: &str) -> Self {
        let method = value(line, "method").unwrap().replace("&lt;", "<").replace("&gt;", ">");
        let mut words = method.split(' ');
        let [class, name, descriptor] = [(); 3].map(|()| words.next().unwrap());
        let qualified = format!("{}.{name}", java_names::class(class.as_bytes()));
        let blob = number(line, "address");
        Self {
            blob,
            size: number(line, "size"),
            code_begin: blob + number(line, "insts_offset"),
            level: number(line, "level") as u8,
            osr: value(line, "compile_kind").as_deref() == Some("osr"),
            method: without_addresses(&java_names::external(&qualified, descriptor.as_bytes())),
        }
    }
}

fn value(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {key}='"))?;
    Some(rest.split_once('\'')?.0.to_owned())
}

fn number(line: &str, key: &str) -> u64 {
    let text = value(line, key).unwrap_or_else(|| panic!("no {key}: {line}"));
    let digits = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
    digits.unwrap_or_else(|| text.parse()).unwrap_or_else(|e| panic!("{key}: {e}: {line}"))
}

/// A frame as a JVM prints it.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed {
    /// With its class.
    pub method: String,
    /// 0: it has none.
    pub line: u32,
}

/// The Java frames of each thread that has some, innermost first, by `jcmd PID Thread.print`.
pub fn printed(jdk: &Jdk, pid: u32) -> HashMap<u64, Vec<Printed>> {
    let output = jdk.tool("jcmd").args([&pid.to_string(), "Thread.print"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found: HashMap<u64, Vec<Printed>> = HashMap::new();
    let mut tid = None;
    for line in text.lines() {
        if line.starts_with('"') {
            // Hexadecimal until JDK 20.
            let nid = line.split_once("nid=").and_then(|(_, rest)| rest.split_whitespace().next());
            tid = nid.and_then(|nid| match nid.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => nid.parse().ok(),
            });
        } else if let Some(frame) = line.trim_start().strip_prefix("at ")
            && let (Some(tid), Some((method, place))) = (tid, frame.split_once('('))
        {
            let line = place.trim_end_matches(')').rsplit_once(':').and_then(|(_, line)| line.parse().ok());
            let method = method.to_owned();
            found.entry(tid).or_default().push(Printed { method, line: line.unwrap_or(0) });
        }
    }
    found
}
