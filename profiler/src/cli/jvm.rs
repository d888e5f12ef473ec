//! `profiler jvm`: the code of a running JVM by name, read from outside as a recording does. Is this JVM understood?
//! What has it compiled, and how? Runs nothing in the JVM.

use std::{
    io::{self, Write},
    sync::Arc,
};

use clap::Args;
use serde::Serialize;

use super::error::{Exit, Failure, to_stdout};
use crate::{
    model::name,
    session::peak_rss_bytes,
    symbolize::runtime::jvm::{
        Fault, Listed, Tier,
        code_cache::CodeHeap,
        method::Method,
        open::{self, OpenError},
    },
};

/// Arguments of `jvm`.
#[derive(Args, Debug)]
pub struct JvmArgs {
    /// The process
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// List all code, not only how much there is
    #[arg(long)]
    pub code: bool,
    /// Print JSON (schema profiler.jvm/1)
    #[arg(long)]
    pub json: bool,
}

/// The shape of all table commands, docs/json.md.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    meta: Meta,
    losses: Losses,
    cost: Cost,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Meta {
    pid: u32,
    /// Major version of the JDK.
    jdk: u32,
    /// Address ranges reserved for code.
    heaps: Vec<Heap>,
}

#[derive(Debug, Serialize)]
struct Heap {
    start: u64,
    reserved_bytes: u64,
    used_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Losses {
    /// Pieces of code that changed or went while they were read.
    unread: u64,
}

#[derive(Debug, Serialize)]
struct Cost {
    peak_rss_bytes: u64,
}

/// One piece of code.
#[derive(Debug, Serialize)]
struct Row {
    address: u64,
    code_bytes: u64,
    /// `c1`, `c2`, `native`, `interpreter`, `stub`.
    kind: &'static str,
    /// `pkg.Class.method`, or the JVM's name of a stub.
    name: String,
    /// With types, as the JVM itself writes it.
    signature: Option<String>,
    file: Option<String>,
    /// First line; 0: unknown.
    line: u32,
    compile_id: Option<i32>,
    /// 1 to 3 C1, 4 C2.
    level: Option<u8>,
    /// Entered in the middle of a loop.
    osr: Option<bool>,
    /// Size of a frame, words.
    frame_words: i32,
}

impl Row {
    fn of(listed: &Listed) -> Self {
        let Listed { blob, tier, method } = listed;
        let method: Option<&Arc<Method>> = method.as_ref();
        let compilation = blob.compilation();
        Self {
            address: blob.code_begin,
            code_bytes: blob.code_end - blob.code_begin,
            kind: tier.key(),
            name: method.map_or_else(|| name::clean(&blob.name), |method| method.qualified()),
            signature: method.map(|method| method.external()),
            file: method.and_then(|method| method.file.clone()),
            line: method.map_or(0, |method| method.line(0)),
            compile_id: compilation.map(|compilation| compilation.id),
            level: compilation.map(|compilation| compilation.level),
            osr: compilation.map(|compilation| compilation.osr),
            frame_words: blob.frame_size,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// No such process, no JVM that is understood, a failure to write to `out`.
pub fn run(args: &JvmArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let document = read(args).map_err(|error| failure(args.pid, &error))?;
    to_stdout(write(&document, args, out))
}

fn read(args: &JvmArgs) -> Result<Document, OpenError> {
    let mut jvm = open::open(args.pid)?;
    let code = jvm.all_code()?;
    // What a compiler has not yet finished, or is dead, is none.
    let unread = code.iter().filter(|entry| matches!(entry, Err(fault) if *fault != Fault::NoCode)).count();
    let heap = |heap: &CodeHeap| Heap {
        start: heap.low,
        reserved_bytes: heap.reserved_high - heap.low,
        used_bytes: heap.high - heap.low,
    };
    Ok(Document {
        schema: "profiler.jvm/1",
        meta: Meta { pid: args.pid, jdk: jvm.major(), heaps: jvm.heaps().iter().map(heap).collect() },
        losses: Losses { unread: unread as u64 },
        cost: Cost { peak_rss_bytes: peak_rss_bytes() },
        rows: code.iter().flatten().map(Row::of).collect(),
    })
}

pub(super) fn failure(pid: u32, error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::Memory(error) if error.kind() == io::ErrorKind::PermissionDenied => Exit::Unsupported,
        OpenError::Process(error) if error.kind() == io::ErrorKind::NotFound => Exit::NoTarget,
        OpenError::NoJvm => Exit::Usage,
        _ => Exit::Failure,
    };
    Failure::new(exit, format!("process {pid}: {error}"))
}

fn write(document: &Document, args: &JvmArgs, out: &mut dyn Write) -> io::Result<()> {
    if args.json {
        serde_json::to_writer(&mut *out, document)?;
        return writeln!(out);
    }
    writeln!(out, "JDK {}, process {}", document.meta.jdk, document.meta.pid)?;
    for tier in [Tier::C1, Tier::C2, Tier::NativeWrapper, Tier::Interpreter, Tier::Stub] {
        let of_tier = || document.rows.iter().filter(|row| row.kind == tier.key());
        let bytes: u64 = of_tier().map(|row| row.code_bytes).sum();
        writeln!(out, "  {:>6} {:<11} {:>8} KiB", of_tier().count(), tier.key(), bytes.div_ceil(1024))?;
    }
    if document.losses.unread > 0 {
        writeln!(out, "  {:>6} changed while they were read", document.losses.unread)?;
    }
    if args.code {
        for row in &document.rows {
            let name = row.signature.as_ref().unwrap_or(&row.name);
            writeln!(out, "{:#x} {:#x} {:<11} {name}", row.address, row.code_bytes, row.kind)?;
        }
    }
    Ok(())
}
