//! From raw stacks to names: process events and /proc in, the profile's modules, functions and locations out.
//!
//! In two steps, because what names an address is gone long before there is time to look it up:
//! 1. **While recording** ([`Symbolizer`]): processes, their program images and mappings are followed through the
//!    kernel's event stream; the files they map are opened at once. At each drain every address becomes a [`FrameId`],
//!    which stands for {file, offset} and needs neither the process nor the path any more.
//! 2. **At the end** ([`Symbolizer::resolve`]): names by file, all its addresses at once.
//!
//! Never a wrong name: where nothing vouches for one, the frame says why it has none (`model::Reason`).
//!
//! | code | names from | module |
//! |---|---|---|
//! | program, library | `.symtab`, separate debug file, `.dynsym`; PLT stubs from relocations; lines and inlined functions from DWARF | its path |
//! | kernel, kernel module, BPF program | /proc/kallsyms, the event stream | `[kernel]`, `[ext4]`, `[bpf]` |
//! | vDSO | its image in memory | `[vdso]` |
//! | JIT | a JVM's own tables; `/tmp/perf-PID.map` | `[jit]` |
//!
//! See docs/symbols.md for what is tried in which order, and what each reason means.

pub mod debug_file;
pub mod demangle;
pub mod dwarf;
pub mod elf_symbols;
pub mod frames;
pub mod functions;
pub mod idle;
pub mod jit;
pub mod kallsyms;
pub mod kernel_text;
pub mod mappings;
pub mod maps;
pub mod markers;
pub mod module;
pub mod native;
pub mod open;
pub mod perf_map;
pub mod plt;
pub mod process;
pub mod process_file;
pub mod root;
pub mod runtime;
pub mod unwind;
pub mod vdso;

mod interval;
mod name_cache;
mod namer;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
};

use profiler_common::{Comm, stack::WalkEnd, unwind::java::is_java_word};

pub use self::{
    frames::FrameId, interval::Interval, jit::Asked, module::ModuleKey, name_cache::NameCache, process::Watch,
};
use self::{
    frames::Frames,
    jit::JitCode,
    kernel_text::KernelText,
    mappings::Mapping,
    module::{Module, Modules},
    namer::Placed,
    process::{Image, Place, Processes},
    runtime::jvm::{open::LIBRARY, wait::Wait},
};
use crate::{
    elf::{self, Bytes, Headers},
    model::{LocationId, Profile, StackEnd},
    perf::{clock::monotonic_ns, record::ProcessEvent},
};

/// Addresses from here up are the kernel's, on all 64-bit architectures that we run on.
const KERNEL_START: u64 = 1 << 63;
/// Most files held open, if the limit of open files allows twice as many.
const MAX_OPEN_FILES: u64 = 1000;
/// Most JVMs that are asked for their names at the end of a recording: each may take its time.
const MAX_ASKED: usize = 16;

/// Who a stack belongs to: the key of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Its incarnation (`profiler_common::sample::CountKey`), 0 if unknown.
    pub incarnation: u64,
    /// `CLOCK_MONOTONIC` of the first sample, ns.
    pub first_ns: u64,
}

/// Follows processes while recording and names their code at the end.
///
/// Call order: `scan_existing` right after the event stream is on; `observe` for each event as it comes; at each drain
/// first `observe` everything up to the drain's time, then `process_comm`, `user_stack` and `kernel_stack` for what
/// was drained, then `drained`; at the end `resolve`.
#[derive(Debug)]
pub struct Symbolizer {
    processes: Processes,
    modules: Modules,
    kernel_text: KernelText,
    frames: Frames,
    /// When it was made: tells recordings apart whose names are kept together.
    recording: u64,
}

impl Symbolizer {
    /// Knows nothing yet.
    pub fn new(watch: Watch) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let max_open = limit.map_or(MAX_OPEN_FILES, |limit| (limit / 2).min(MAX_OPEN_FILES));
        Self {
            processes: Processes::new(watch),
            modules: Modules::new(max_open as usize),
            kernel_text: KernelText::default(),
            frames: Frames::default(),
            recording: monotonic_ns(),
        }
    }

    /// Reads the processes that are there and pass `filter` (by process id). One that ends meanwhile is passed over.
    ///
    /// # Errors
    /// /proc cannot be listed.
    pub fn scan_existing(&mut self, filter: impl Fn(u32) -> bool) -> io::Result<()> {
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|&pid| filter(pid)) {
                self.processes.ensure(pid, &mut self.modules);
            }
        }
        Ok(())
    }

    /// Takes in a process event. Events must come in the order of their times.
    pub fn observe(&mut self, event: &ProcessEvent) {
        self.kernel_text.observe(event);
        self.processes.observe(event, &mut self.modules);
    }

    /// Command name of the process (of its program image at that time; NUL-padded), if anything is known of it.
    pub fn process_comm(&mut self, owner: Owner) -> Option<Comm> {
        if owner.pid == 0 {
            // The idle tasks are no process in /proc; their threads are called `swapper/CPU`.
            return Some(process_file::comm(b"swapper"));
        }
        let image = self.processes.image(owner.pid, owner.incarnation, owner.first_ns, &mut self.modules)?;
        (image.comm != Comm::default()).then_some(image.comm)
    }

    /// Appends the frames of a user stack (absolute addresses: the sampled instruction, then return addresses).
    ///
    /// A return address in no mapping proves that the chain of frame pointers broke: it is kept as one unknown frame, so
    /// that the break is seen, and what the walk picked up behind it is not, because it was never a frame. True if so.
    pub fn user_stack(&mut self, owner: Owner, addresses: &[u64], out: &mut Vec<FrameId>) -> bool {
        let Some(&leaf) = addresses.first() else { return false };
        let Owner { pid, incarnation, first_ns } = owner;
        let Self { processes, modules, frames, .. } = self;
        let mut image = processes.image(pid, incarnation, first_ns, modules);
        // Only the leaf is sure to be code; addresses further out can be what a broken chain picked up.
        let is_unknown =
            |image: &Image| image.unread.is_none() && image.place(leaf, first_ns) == Place::Nowhere;
        if leaf < KERNEL_START && image.as_deref().is_some_and(is_unknown) {
            processes.reread(pid, modules);
            image = processes.image(pid, incarnation, first_ns, modules);
        }
        for (depth, &address) in addresses.iter().enumerate() {
            let address = if depth == 0 { address } else { address.wrapping_sub(1) };
            let place = |image: &Image| match is_java_word(address) {
                true => Place::Mapped(ModuleKey::ANONYMOUS, address),
                false => image.place(address, first_ns),
            };
            let (module, address) = match image.as_mut().map(|image| (place(image), image)) {
                Some((Place::Mapped(ModuleKey::ANONYMOUS, address), image)) => {
                    (*image.jit.get_or_insert_with(|| modules.jit(pid)), address)
                }
                Some((Place::Mapped(module, address), _)) => (module, address),
                Some((Place::Nowhere, image)) => (image.unread.unwrap_or(ModuleKey::NO_MAPPING), address),
                None => (ModuleKey::PROCESS_GONE, address),
            };
            if depth > 0 && module == ModuleKey::NO_MAPPING {
                out.push(frames.intern(module, 0));
                return true;
            }
            modules.touch(module);
            let known = frames.count();
            out.push(frames.intern(module, address));
            if frames.count() > known {
                modules.want(module, address);
            }
        }
        if let Some(&outermost) = out.last() {
            frames.mark_outermost(outermost);
        }
        false
    }

    /// Whether a user stack that was walked by unwind tables went through memory that had changed before the walk was
    /// told ([`Symbolizer::told`]): the number of frames that are right. Behind them there are no callers.
    pub fn right_frames(&mut self, owner: Owner, addresses: &[u64]) -> Option<usize> {
        let Owner { pid, incarnation, first_ns } = owner;
        let image = self.processes.image(pid, incarnation, first_ns, &mut self.modules)?;
        let at = |(depth, address): (usize, &u64)| address.wrapping_sub(u64::from(depth > 0));
        let mut addresses = addresses.iter().enumerate().map(at);
        Some(addresses.position(|address| image.is_outdated(address, first_ns))? + 1)
    }

    /// How many mappings have taken the place of others until now: what is known of addresses is then out of date.
    pub const fn replacements(&self) -> u64 {
        self.processes.replacements()
    }

    /// Notes that the walk by unwind tables goes by the present `code_mappings` of a process from now on.
    pub fn told(&mut self, pid: u32, now_ns: u64) {
        if let Some(image) = self.processes.latest(pid) {
            image.told(now_ns);
        }
    }

    /// Notes where the code heaps begin of a process that is a JVM, which walks go by from now on (`java::Jvm::code_base`).
    pub fn told_code_base(&mut self, pid: u32, address: u64) {
        let Self { processes, modules, .. } = self;
        if let Some(image) = processes.latest(pid) {
            let module = *image.jit.get_or_insert_with(|| modules.jit(pid));
            modules.set_code_base(module, address);
        }
    }

    /// Appends the frames of a kernel stack (absolute addresses: the sampled instruction, then return addresses).
    pub fn kernel_stack(&mut self, first_ns: u64, addresses: &[u64], out: &mut Vec<FrameId>) {
        for (depth, &address) in addresses.iter().enumerate() {
            let address = if depth == 0 { address } else { address.wrapping_sub(1) };
            let module = self.kernel_text.find(address, first_ns, &mut self.modules);
            out.push(self.frames.intern(module, address));
        }
    }

    /// The executable mappings of a process as they are now, lowest address first. `None`: they cannot be read.
    pub fn code_mappings(&mut self, pid: u32) -> Option<Vec<Mapping>> {
        self.processes.ensure(pid, &mut self.modules);
        let image = self.processes.latest(pid)?;
        image.unread.is_none().then(|| image.mappings().copied().collect())
    }

    /// Whether mappings are those of a JVM: its library is among them.
    pub fn is_jvm(&self, mappings: &[Mapping]) -> bool {
        let is_library = |mapping: &Mapping| {
            let Module::File(file) = self.modules.get(mapping.module) else { return false };
            open::without_deleted(&file.path).rsplit(|&byte| byte == b'/').next() == Some(LIBRARY)
        };
        mappings.iter().any(is_library)
    }

    /// Reads the mappings of a process again, from time to time only. True if it did.
    pub fn reread(&mut self, pid: u32) -> bool {
        self.processes.reread(pid, &mut self.modules)
    }

    /// Whether there is a process of that id.
    pub fn is_alive(pid: u32) -> bool {
        fs::exists(format!("/proc/{pid}")).unwrap_or(true)
    }

    /// The file of a module, or the vDSO's image, with its headers. `None`: it cannot be read.
    pub fn open_code(&self, module: ModuleKey) -> Option<(CodeFile, Headers)> {
        if module == ModuleKey::VDSO {
            let image = vdso::read_own()?;
            let headers = elf::read_headers(Bytes::Memory(&image)).ok()?;
            return Some((CodeFile::Image(image), headers));
        }
        let Module::File(file) = self.modules.get(module) else { return None };
        let file = file.file().ok()?;
        let headers = elf::read_headers(Bytes::File(&file)).ok()?;
        Some((CodeFile::File(file), headers))
    }

    /// All samples taken before this time have been looked up: names code whose names do not outlive its process, and
    /// forgets what ended before.
    pub fn drained(&mut self, until_ns: u64) {
        self.modules.look_up();
        self.processes.forget_ended_before(until_ns);
        self.kernel_text.forget_before(until_ns);
    }

    /// Has JVMs of which code was sampled, and whose own tables are not known here, write their perf maps, by which it is then
    /// named. Runs code in them.
    pub fn ask_for_maps(&mut self) -> Vec<Asked> {
        self.modules.look_up();
        // A process has more than one if it executed another program.
        let mut codes = BTreeMap::new();
        for module in &self.modules.entries {
            if let Module::Jit(code) = module {
                codes.insert(code.pid(), &**code);
            }
        }
        codes.into_values().filter_map(JitCode::ask_for_map).take(MAX_ASKED).collect()
    }

    /// What is held at the moment.
    pub fn held(&self) -> Held {
        Held {
            processes: self.processes.count(),
            open_files: self.modules.open_files(),
            frames: self.frames.count(),
        }
    }

    /// Appends modules, functions and locations to the profile with the names that are known already: those of code that was
    /// made at run time. All other code of a module is one function. The recording goes on.
    pub fn known(&self, profile: &mut Profile) -> Names {
        Names { placed: namer::name_known(self.frames.list(), &self.modules, profile) }
    }

    /// Names everything: appends modules, functions and locations to the profile.
    pub fn resolve(self, profile: &mut Profile) -> Names {
        let Self { processes, mut modules, frames, .. } = self;
        drop(processes);
        let frames = frames.into_list();
        Names { placed: namer::name_all(&frames, |key| modules.take(key), None, profile) }
    }
}

/// Where the code of a module can be read.
#[derive(Debug)]
pub enum CodeFile {
    /// In a file.
    File(File),
    /// In memory.
    Image(Vec<u8>),
}

/// What a [`Symbolizer`] holds while recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Processes known.
    pub processes: usize,
    /// Files open.
    pub open_files: usize,
    /// Distinct addresses.
    pub frames: usize,
}

/// The answer to every [`FrameId`].
#[derive(Debug)]
pub struct Names {
    placed: Placed,
}

impl Names {
    /// The location of a frame.
    pub fn location(&self, frame: FrameId) -> LocationId {
        self.placed.locations[frame.0 as usize]
    }

    /// What a thread waits for that blocks with these frames (leaf first), if a runtime tells by its innermost code.
    pub fn wait(&self, frames: &[FrameId]) -> Option<Wait> {
        frames.iter().find_map(|frame| self.placed.waits.get(&frame.0)).copied().flatten()
    }

    /// How far a user stack reaches, and how many of its frames are real: behind a thread's first function the walk
    /// may have picked up what is no frame. A walk by frame pointers only, where tables would have been used, may have
    /// got there past functions that keep none: it is not told to be complete.
    pub fn user_end(&self, frames: &[FrameId], walk: WalkEnd) -> (usize, StackEnd) {
        match frames.iter().position(|frame| self.placed.roots[frame.0 as usize]) {
            Some(root) if walk == WalkEnd::UnknownProcess => (root + 1, StackEnd::FirstSample),
            Some(root) => (root + 1, StackEnd::Complete),
            None => (frames.len(), stack_end(walk)),
        }
    }
}

/// What the end of a walk means for a stack in which no function is known to be a thread's first.
const fn stack_end(walk: WalkEnd) -> StackEnd {
    match walk {
        WalkEnd::Complete => StackEnd::Complete,
        WalkEnd::Truncated => StackEnd::Truncated,
        WalkEnd::Ended | WalkEnd::NoRegisters | WalkEnd::TailCallFailed => StackEnd::Broken,
        WalkEnd::NoMapping => StackEnd::NoMapping,
        WalkEnd::NoRow => StackEnd::NoUnwindInfo,
        WalkEnd::UnsupportedRule => StackEnd::UnsupportedRule,
        WalkEnd::BadRead => StackEnd::UnreadableStack,
        WalkEnd::NoProgress => StackEnd::NoProgress,
        WalkEnd::NotLoaded => StackEnd::NotLoaded,
        WalkEnd::UnknownProcess => StackEnd::FirstSample,
        WalkEnd::Exiting => StackEnd::Exiting,
        WalkEnd::JavaCode => StackEnd::JavaCode,
    }
}

/// Whether the kernel frames (leaf first) of a sample of the *idle task* show an idle CPU.
pub fn is_idle(profile: &Profile, locations: &[LocationId]) -> bool {
    idle::is_idle_stack(locations.iter().flat_map(|id| {
        let lines = &profile.locations[id.index()].lines;
        lines.iter().map(|line| profile.functions[line.function.index()].name.as_str())
    }))
}
