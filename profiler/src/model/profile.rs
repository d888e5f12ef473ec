//! The profile: samples over interned stacks, locations, functions, modules and threads.
//!
//! The shape is that of a pprof file, so that storing and re-reading lose nothing; ids are indices into the vectors of
//! [`Profile`] and are valid by construction (`render::pprof` checks those of a foreign file).

use super::{Cost, Losses, Meta, Reason, SampleType};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The index as a `usize`.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

ids! {
    /// Index into [`Profile::modules`].
    ModuleId,
    /// Index into [`Profile::functions`].
    FunctionId,
    /// Index into [`Profile::locations`].
    LocationId,
    /// Index into [`Profile::stacks`].
    StackId,
    /// Index into [`Profile::threads`].
    ThreadId,
}

/// A whole recording with resolved names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Circumstances.
    pub meta: Meta,
    /// What each entry of [`Sample::values`] means.
    pub sample_types: Vec<SampleType>,
    /// Executables, libraries, the kernel, JIT regions.
    pub modules: Vec<Module>,
    /// Functions by name.
    pub functions: Vec<Function>,
    /// Code locations.
    pub locations: Vec<Location>,
    /// Distinct stacks.
    pub stacks: Vec<Stack>,
    /// Threads that have samples.
    pub threads: Vec<Thread>,
    /// The samples, aggregated by (thread, stack, window).
    pub samples: Vec<Sample>,
    /// What was lost.
    pub losses: Losses,
    /// What the profiler used.
    pub cost: Cost,
}

/// What kind of code a module holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModuleKind {
    /// The kernel, its modules and its BPF programs.
    Kernel,
    /// An ELF file.
    Native,
    /// The vDSO.
    Vdso,
    /// Executable memory without a file (a JIT compiler's).
    Jit,
    /// Not in any mapping.
    Unknown,
}

impl ModuleKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Kernel, Self::Native, Self::Vdso, Self::Jit, Self::Unknown];

    /// Stable key (recordings, the store).
    pub const fn key(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Vdso => "vdso",
            Self::Jit => "jit",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of that key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }
}

/// A module: where code comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Cleaned path or bracketed name: `/usr/bin/ls`, `[kernel]`, `[ext4]`, `[vdso]`, `[jit]`, `[unknown]`.
    pub path: String,
    /// GNU build id, lower-case hex.
    pub build_id: Option<String>,
    /// Kind of code.
    pub kind: ModuleKind,
}

impl Module {
    /// The last component of the path, the name shown in tables.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(&self.path)
    }
}

/// A function, or the visible stand-in of an address without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Cleaned, demangled name; `libfoo.so+0x1f3 [no symbols]` where there is none.
    pub name: String,
    /// Cleaned source file, where debug information exists.
    pub file: Option<String>,
    /// Why there is no real name.
    pub unresolved: Option<Reason>,
}

/// One function activation at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Source line, 0 if unknown.
    pub line: u32,
}

/// What a frame executes: the colour of a flamegraph box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Kernel code.
    Kernel,
    /// Compiled ahead of time.
    Native,
    /// Compiled at run time, by the optimizing compiler where a runtime has several.
    Jit,
    /// Compiled at run time by a quick compiler, until it is worth more (a JVM's C1).
    Baseline,
    /// Interpreted (of a language runtime).
    Interpreted,
    /// Made by a language runtime for itself: bridges to native code, adapters, handlers.
    Stub,
    /// Inlined into its caller (of any compiled kind).
    Inlined,
    /// Unknown memory.
    Unknown,
}

impl FrameKind {
    /// All kinds, in the order of legends.
    pub const ALL: [Self; 8] = [
        Self::Kernel,
        Self::Native,
        Self::Jit,
        Self::Baseline,
        Self::Interpreted,
        Self::Stub,
        Self::Inlined,
        Self::Unknown,
    ];

    /// Stable key (JSON, pprof).
    pub const fn key(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Native => "native",
            Self::Jit => "jit",
            Self::Baseline => "baseline",
            Self::Interpreted => "interpreted",
            Self::Stub => "stub",
            Self::Inlined => "inlined",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of that key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }
}

/// A code location: an address of a module, and the functions active there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The module the address lies in.
    pub module: ModuleId,
    /// File offset for files, absolute address otherwise. The sampled instruction, or for a caller an address inside
    /// its call instruction (the return address less one, as pprof wants it).
    pub address: u64,
    /// The functions, innermost inlined one first, the physical function last. Never empty.
    pub lines: Vec<Line>,
    /// Kind of the physical function.
    pub kind: FrameKind,
}

/// How far a stack reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StackEnd {
    /// To the thread's first function (or there is no user part by nature: a kernel thread).
    Complete,
    /// Cut at the depth limit.
    Truncated,
    /// The chain of frame pointers broke before the thread's first function (code without frame pointers, mostly).
    Broken,
    /// A return address lay in no executable mapping.
    NoMapping,
    /// Code that its file's unwind table does not cover.
    NoUnwindInfo,
    /// An unwind rule that is not supported.
    UnsupportedRule,
    /// The stack's memory could not be read at that moment.
    UnreadableStack,
    /// A frame would not have been further out than its callee.
    NoProgress,
    /// The file's unwind table was not in memory (yet).
    NotLoaded,
    /// Of the first samples of a process, before its unwind tables were there; walked by frame pointers.
    FirstSample,
    /// The thread was ending, and its stack gone already.
    Exiting,
    /// Code that a JVM made, at a place where its frame is not known.
    JavaCode,
    /// The stack could not be captured.
    Lost,
}

impl StackEnd {
    /// All ends.
    pub const ALL: [Self; 13] = [
        Self::Complete,
        Self::Truncated,
        Self::Broken,
        Self::NoMapping,
        Self::NoUnwindInfo,
        Self::UnsupportedRule,
        Self::UnreadableStack,
        Self::NoProgress,
        Self::NotLoaded,
        Self::FirstSample,
        Self::Exiting,
        Self::JavaCode,
        Self::Lost,
    ];

    /// Stable key (JSON, pprof).
    pub const fn key(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Broken => "broken",
            Self::NoMapping => "no_mapping",
            Self::NoUnwindInfo => "no_unwind_info",
            Self::UnsupportedRule => "unsupported_rule",
            Self::UnreadableStack => "unreadable_stack",
            Self::NoProgress => "no_progress",
            Self::NotLoaded => "table_not_loaded",
            Self::FirstSample => "first_sample",
            Self::Exiting => "exiting",
            Self::JavaCode => "java_code",
            Self::Lost => "lost",
        }
    }

    /// In words, for reports.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NoMapping => "broken (no mapping)",
            Self::NoUnwindInfo => "without unwind information",
            Self::UnsupportedRule => "with an unsupported unwind rule",
            Self::UnreadableStack => "unreadable",
            Self::NoProgress => "broken (no progress)",
            Self::NotLoaded => "without loaded table",
            Self::FirstSample => "first samples",
            Self::Exiting => "of ending threads",
            Self::JavaCode => "in unknown Java frames",
            Self::Complete | Self::Truncated | Self::Broken | Self::Lost => self.key(),
        }
    }

    /// The end of that key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.key() == key)
    }
}

/// A stack: locations leaf first, kernel part before the user part that entered it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Locations, leaf first. May be empty (a sample whose stacks were lost).
    pub locations: Vec<LocationId>,
    /// How far it reaches.
    pub end: StackEnd,
}

/// A thread, and the process it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Process id.
    pub pid: u32,
    /// Thread id; 0: threads of that name together (the daemon's history), or the idle task.
    pub tid: u32,
    /// Cleaned command name of the process.
    pub process: String,
    /// Cleaned name of the thread.
    pub name: String,
    /// Tells processes apart that had the same pid, and images the same process executed.
    pub incarnation: u64,
}

impl Thread {
    /// Whether it stands for several processes of one name, which have no pid here (the daemon's history).
    pub const fn is_of_several(&self) -> bool {
        self.pid == 0 && self.incarnation != 0
    }
}

/// Samples of one thread with one stack in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Who.
    pub thread: ThreadId,
    /// Where.
    pub stack: StackId,
    /// Start of the window, ns since the start of the recording.
    pub window_start_ns: u64,
    /// One value per [`Profile::sample_types`].
    pub values: Vec<i64>,
}

impl Sample {
    /// Its value in a column, of what cannot be negative; 0 if there is no such column.
    pub fn amount(&self, column: Option<usize>) -> u64 {
        let value = column.and_then(|column| self.values.get(column)).copied().unwrap_or(0);
        u64::try_from(value).unwrap_or(0)
    }
}

/// A frame as renderers walk it: one function activation, inlined ones expanded.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The function.
    pub function: &'a Function,
    /// Its id.
    pub function_id: FunctionId,
    /// Source line, 0 if unknown.
    pub line: u32,
    /// The module.
    pub module: &'a Module,
    /// Its id.
    pub module_id: ModuleId,
    /// Kind, with inlining expanded.
    pub kind: FrameKind,
    /// Address of the location.
    pub address: u64,
}

impl Profile {
    /// The frames of a stack, leaf first, inlined functions before the function they are inlined into.
    pub fn frames(&self, stack: StackId) -> impl DoubleEndedIterator<Item = Frame<'_>> {
        self.stacks[stack.index()].locations.iter().flat_map(move |&id| {
            let location = &self.locations[id.index()];
            let physical = location.lines.len().saturating_sub(1);
            location.lines.iter().enumerate().map(move |(i, line)| Frame {
                function: &self.functions[line.function.index()],
                function_id: line.function,
                line: line.line,
                module: &self.modules[location.module.index()],
                module_id: location.module,
                kind: if i < physical { FrameKind::Inlined } else { location.kind },
                address: location.address,
            })
        })
    }

    /// Where samples have the values of the sample type of that name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.sample_types.iter().position(|sample_type| sample_type.name == name)
    }

    /// The sum of one sample type over all samples.
    pub fn total(&self, sample_type: usize) -> i64 {
        self.samples.iter().map(|sample| sample.values[sample_type]).fold(0, i64::saturating_add)
    }
}
