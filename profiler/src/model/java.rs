//! What a JVM did in a span of time: its threads, its own work (collections, safepoints, compilations), the methods that took
//! the CPU, and the monitors that threads waited for.

use serde::Serialize;

use super::{Cost, Losses, Meta, named::Named};

/// A span of time and what happened in it.
#[derive(Clone, Debug, Default)]
pub struct Span {
    /// Its number, from 1; `None`: the whole run.
    pub number: Option<u64>,
    /// Circumstances.
    pub meta: Meta,
    /// What was lost, of the whole run.
    pub losses: Losses,
    /// The profiler's own consumption, of the whole run.
    pub cost: Cost,
    /// Which JVM it is.
    pub jvm: Jvm,
    /// What the JVM counted of itself; `None`: it keeps no counters.
    pub counts: Option<Counts>,
    /// Threads, those with most time on a CPU first.
    pub threads: Vec<Thread>,
    /// Methods, those with most samples as the innermost one first.
    pub methods: Vec<Method>,
    /// Samples of a CPU, with and without Java.
    pub samples: u64,
    /// Monitors that were waited for, by where, those with most time first.
    pub monitors: Vec<Monitor>,
}

/// A JVM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Jvm {
    /// Process id.
    pub pid: u32,
    /// Major version of the JDK; 0: not known.
    pub jdk: u32,
    /// Its full version, cleaned; empty: not known.
    pub version: String,
    /// Class or archive and arguments, cleaned.
    pub command: String,
    /// The collector, as it calls itself, cleaned.
    pub collector: String,
}

/// What a JVM counted of itself in the span; the heap is as it was at the end. `None`: this version does not count it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Collectors.
    pub collectors: Vec<Collector>,
    /// Cause of the last collection, if there was one in the span.
    pub last_gc_cause: Option<String>,
    /// Times that all Java threads were stopped, for whatever reason.
    pub safepoints: Option<u64>,
    /// How long they stood.
    pub safepoint_ns: Option<u64>,
    /// How long it took until they all stood, which is not in `safepoint_ns`.
    pub safepoint_sync_ns: Option<u64>,
    /// Methods compiled.
    pub compilations: Option<u64>,
    /// Time of the compilers' threads for that.
    pub compilation_ns: Option<u64>,
    /// Classes loaded, those out of the shared archive included.
    pub classes_loaded: Option<u64>,
    /// Classes unloaded.
    pub classes_unloaded: Option<u64>,
    /// Bytes in use in the Java heap.
    pub heap_used_bytes: Option<u64>,
    /// Bytes of memory that it has.
    pub heap_capacity_bytes: Option<u64>,
    /// Bytes in use of metaspace.
    pub metaspace_used_bytes: Option<u64>,
}

/// A collector, or one of its kinds of pauses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collector {
    /// As the JVM calls it, cleaned: `G1 young collection pauses`.
    pub name: String,
    /// How often.
    pub collections: u64,
    /// How long, added up.
    pub ns: u64,
}

/// A thread. Times are ns and add up: `cpu_ns` + `irq_ns` + `run_queue_ns` + `blocked_ns` + `unknown_ns` = `wall_ns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// Name as Java has it, cleaned; else the kernel's, which has 15 bytes at most.
    pub name: String,
    /// It runs Java code; if not, it is one of the JVM's own.
    pub java: bool,
    /// What the JVM says that it was doing at the end: `runnable`, `blocked`, `waiting`, `object-wait`, ...; `None`: it is no Java
    /// thread, or is gone, or the JVM is of JDK 8.
    pub state: Option<&'static str>,
    /// The innermost Java method at the end, unless it ran.
    pub innermost: Option<String>,
    /// It ended.
    pub ended: bool,
    /// Time that was accounted.
    pub wall_ns: u64,
    /// Time on a CPU without `irq_ns`.
    pub cpu_ns: u64,
    /// Time on a CPU that interrupts took.
    pub irq_ns: u64,
    /// Time that it waited for a CPU.
    pub run_queue_ns: u64,
    /// Time that it waited for something else.
    pub blocked_ns: u64,
    /// The same by cause: those of Java where its code tells, else the kernel's.
    pub blocked: Named,
    /// Time in which a switch was not seen.
    pub unknown_ns: u64,
    /// Bytes that it allocated on the Java heap.
    pub allocated_bytes: Option<u64>,
}

/// A method. Samples of a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Method {
    /// `pkg.Class.method`, cleaned.
    pub method: String,
    /// Samples in its own code.
    pub own: u64,
    /// Samples in native code, the JVM and the kernel that it called.
    pub native: u64,
    /// Samples with it anywhere in the stack.
    pub total: u64,
    /// `own` and `native` by how its code came to be: `jit`, `baseline`, `interpreted`, `inlined`, `stub`.
    pub kinds: Named,
}

/// A place at which threads waited to enter a monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Monitor {
    /// Class of the objects, cleaned, those seen most often first; empty: none was seen.
    pub classes: Vec<String>,
    /// The method.
    pub method: String,
    /// The line; 0: unknown.
    pub line: u32,
    /// Waits that ended, or went on at the end of the run.
    pub waits: u64,
    /// Their time, ns.
    pub wait_ns: u64,
    /// Their mean.
    pub avg_ns: u64,
    /// Threads that waited.
    pub threads: u64,
}
