//! Walking a user stack by the tables of the files it runs through (`profiler_common::unwind`).
//!
//! A walk begins in a probe's program ([`begin`]) and goes on in programs of its own, [`FRAMES_PER_CALL`] frames each,
//! that call each other by tail calls ([`go_on`]): a loop over all frames in one program would be more than verifiers
//! of Linux 5.10 follow. The state is in per-CPU memory, one slot per kind of program that can interrupt another.
//!
//! Nothing is known of a process until it is sampled or executes a program: user space is then asked for its mappings
//! and tables ([`processes`]), and the first sample is walked by the kernel by frame pointers.

mod arena;
mod java;
pub mod kernel;
pub mod processes;
pub mod user;

#[cfg(bpf_target_arch = "aarch64")]
const ARCH: Arch = Arch::Aarch64;
#[cfg(not(bpf_target_arch = "aarch64"))]
const ARCH: Arch = Arch::X86_64;

use aya_ebpf::{
    EbpfContext, Global,
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::bpf_probe_read_user,
    macros::btf_map,
};
use profiler_common::{
    loss::Loss,
    registers::Registers,
    sample::{COUNT, WALK},
    stack::{MAX_FRAMES, RawStack, WalkEnd},
    unwind::{
        Arch,
        java::{CodeId, Jvm},
        map::{Ask, JAVA, MAX_MODULES, Mapping, Module, NO_MODULE, State},
        memo::{self, FpUse, Log, Memo},
        row::PAGE_SHIFT,
        rule::Rule,
        step::{Caller, by_call, by_frame_pointer, by_rule},
    },
};

use crate::{loss, registers, task, tuning};
use processes::Found;

/// Frames of one program. With [`MAX_CALLS`] tail calls it is more than a stack holds.
const FRAMES_PER_CALL: usize = 5;
/// Tail calls that a walk takes at most; the kernel allows 33 of a program (`MAX_TAIL_CALL_CNT`), one is the probe's last.
const MAX_CALLS: usize = MAX_FRAMES.div_ceil(FRAMES_PER_CALL);
const _: () = assert!(MAX_CALLS < 32);

/// `BPF_F_MMAPABLE`.
const MMAPABLE: usize = 1 << 10;

/// 1: walk by tables. 0: the kernel walks by frame pointers.
#[unsafe(no_mangle)]
static UNWIND: Global<u32> = Global::new(0);

/// The tables' heads, by the number that mappings have. Shrunk to one entry at load if tables are not used.
#[btf_map]
static MODULES: Array<Module, MAX_MODULES, MMAPABLE> = Array::new();

/// Programs that walk: a slot for each kind that can interrupt another one on the same CPU.
#[derive(Clone, Copy)]
pub enum Slot {
    /// perf_event programs.
    PerfEvent = 0,
    /// Programs of tracepoints that are hit with interrupts off.
    Tracepoint = 1,
    /// Programs of tracepoints and of places in the kernel by way of perf, which the kernel does not nest.
    PerfTracepoint = 2,
    /// Programs of the entries of system calls.
    Syscall = 3,
    /// Programs at breakpoints in user code.
    Uprobe = 4,
    /// Programs that are hit where a task's own code is done in the kernel, and in soft interrupts too.
    Socket = 5,
    /// The same programs, in soft interrupts: these do not interrupt each other.
    SoftInterrupt = 6,
}

impl Slot {
    /// Number of slots.
    pub const COUNT: usize = 7;
}

/// The state of a walk.
#[repr(C)]
pub struct Walk {
    /// The frame that is looked at.
    registers: Registers,
    /// The mapping of the last frame: callers are mostly in the same.
    mapping: Mapping,
    /// First mapping of the process.
    first: u32,
    /// Number of its mappings.
    count: u32,
    /// 1: the frame has all its registers, and `pc` is the next instruction, not the one behind a call.
    interrupted: u32,
    pid: u32,
    incarnation: u64,
    now_ns: u64,
    /// Which telling of user space's the mappings are of.
    version: u64,
    /// 1: the frame is in code that a JVM made.
    java: u32,
    padding: u32,
    /// What steps through such code read.
    scratch: java::Scratch,
    /// What has been read, of walks that may be kept.
    log: Log,
    /// What has been walked.
    pub stack: RawStack,
}

impl Walk {
    /// The stack that the walk would find which has just begun, if it is known from an earlier one.
    #[inline(always)]
    pub fn known(&mut self, memo: &Memo) -> Option<u64> {
        let jvm = if memo.has_code() { Some(java::jvm(self)?) } else { None };
        let Self { registers, incarnation, version, now_ns, scratch, .. } = self;
        let stack = memo.stack(registers, *incarnation, *version, *now_ns, &mut Memory { scratch, jvm })?;
        (jvm.is_none() || java::jvm(self).is_some()).then_some(stack)
    }

    /// Keeps the walk, which has found the stack of that name, for the next one from the same place.
    #[inline(always)]
    pub fn keep(&self, memo: &mut Memo, stack: u64) {
        memo.keep(&self.log, stack, self.incarnation, self.version, self.now_ns);
    }

    #[inline(always)]
    fn ask(&self, why: Ask, module: u32) {
        processes::ask(why, module, self.pid, self.incarnation, self.now_ns);
    }
}

/// The memory of the process, as walks that were kept are compared with it.
struct Memory<'a> {
    scratch: &'a mut java::Scratch,
    jvm: Option<&'a Jvm>,
}

impl memo::Memory for Memory<'_> {
    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        read(address)
    }

    #[inline(always)]
    fn code(&mut self, offset: u64) -> Option<CodeId> {
        java::code_at(self.scratch, self.jvm?, offset)
    }
}

#[btf_map]
static WALKS: PerCpuArray<Walk, { Slot::COUNT }> = PerCpuArray::new();

/// The state of the current CPU's walk.
#[inline(always)]
pub fn current(slot: Slot) -> Option<&'static mut Walk> {
    // SAFETY: this CPU's memory, and a slot's programs do not interrupt each other.
    WALKS.get_ptr_mut(slot as u32).map(|walk| unsafe { &mut *walk })
}

/// Sets out on a walk of the current task's user stack.
///
/// # Errors
/// Why it cannot be walked by tables.
#[inline(always)]
pub fn begin(walk: &mut Walk, pid: u32, incarnation: u64, now_ns: u64) -> Result<(), WalkEnd> {
    if UNWIND.load() == 0 {
        return Err(WalkEnd::Ended);
    }
    let Some(registers) = registers::user() else { return Err(WalkEnd::NoRegisters) };
    let Found { first, count, version } =
        processes::find(pid, incarnation, now_ns).ok_or(WalkEnd::UnknownProcess)?;
    walk.registers = registers;
    walk.mapping.start = 0;
    walk.mapping.end = 0;
    (walk.first, walk.count) = (first, count);
    (walk.pid, walk.incarnation, walk.now_ns) = (pid, incarnation, now_ns);
    walk.version = version;
    walk.log.begin(registers);
    walk.interrupted = 1;
    walk.java = 0;
    walk.stack.len = 0;
    Ok(())
}

/// Walks on, some frames far, and then in the probe's next program: comes back only if the kernel refuses to call it,
/// and the walk ends here. `LOG`: the walk may be kept ([`Walk::keep`]).
#[inline(always)]
pub fn go_on<const LOG: bool, C: EbpfContext>(ctx: &C, walk: &mut Walk, programs: &ProgramArray<2>) {
    let walked =
        if tuning::is_deep_enough(walk.stack.len) { Some(WalkEnd::Truncated) } else { frames::<LOG>(walk) };
    let next = match walked {
        None => WALK,
        Some(end) => {
            if end == WalkEnd::Truncated {
                loss::count(Loss::UserStackTruncated);
            }
            walk.stack.end = end as u32;
            COUNT
        }
    };
    // SAFETY: nothing is owned that would have to be dropped.
    unsafe { programs.tail_call(ctx, next) };
    if next == WALK {
        walk.stack.end = WalkEnd::TailCallFailed as u32;
    }
}

/// Walks some frames far. `None`: there may be more of them.
#[inline(always)]
fn frames<const LOG: bool>(walk: &mut Walk) -> Option<WalkEnd> {
    if walk.java != 0 {
        let end = java::frames::<LOG>(walk);
        if end.is_some() || walk.java != 0 {
            return end;
        }
    }
    for _ in 0..FRAMES_PER_CALL {
        match step::<LOG>(walk) {
            Ok(caller) => {
                walk.registers = caller.registers;
                walk.interrupted = u32::from(caller.interrupted);
            }
            Err(WalkEnd::BadRead) if task::is_exiting() => return Some(WalkEnd::Exiting),
            // Another kind of walk, by the next program, which begins with this frame.
            Err(WalkEnd::JavaCode) => {
                walk.stack.len -= 1;
                walk.java = 1;
                return None;
            }
            Err(end) => return Some(end),
        }
    }
    None
}

#[inline(always)]
fn step<const LOG: bool>(walk: &mut Walk) -> Result<Caller, WalkEnd> {
    let depth = walk.stack.len as usize;
    if depth >= MAX_FRAMES {
        return Err(WalkEnd::Truncated);
    }
    let pc = walk.registers.pc;
    let interrupted = walk.interrupted != 0;
    // A return address stands for the call before it; readers subtract one, which an interrupted instruction has to
    // make up for.
    walk.stack.frames[depth] = if interrupted && depth > 0 { pc.wrapping_add(1) } else { pc };
    walk.stack.len = depth as u32 + 1;
    let at = if interrupted { pc } else { pc.wrapping_sub(1) };
    if at < walk.mapping.start || at >= walk.mapping.end {
        let Some(mapping) = arena::mapping(walk.first, walk.count, at) else {
            walk.ask(Ask::UnknownAddress, NO_MODULE);
            return Err(WalkEnd::NoMapping);
        };
        // Member by member: of a whole one the compiler makes a call of a copying loop.
        (walk.mapping.start, walk.mapping.end) = (mapping.start, mapping.end);
        (walk.mapping.bias, walk.mapping.module) = (mapping.bias, mapping.module);
    }
    let (rule, otherwise) = how(walk, at)?;
    let log = &mut walk.log;
    if rule != Rule::NONE {
        return by_rule(ARCH, rule, &walk.registers, interrupted, logged::<LOG>(log, FpUse::of(rule)));
    }
    if otherwise == Otherwise::FramePointer {
        return by_frame_pointer(ARCH, &walk.registers, logged::<LOG>(log, FpUse::RECORD));
    }
    if !interrupted {
        return Err(WalkEnd::NoRow);
    }
    by_call(ARCH, &walk.registers, logged::<LOG>(log, FpUse::NONE))
}

/// How code is left that no rule is known for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    FramePointer,
    Call,
}

/// How the function at an address of the walk's mapping is left. Each way of leaving is in the program once only, which
/// is what it costs to verify.
#[inline(always)]
fn how(walk: &Walk, at: u64) -> Result<(Rule, Otherwise), WalkEnd> {
    if walk.mapping.module == NO_MODULE {
        return Ok((Rule::NONE, Otherwise::FramePointer));
    }
    let Some(module) = MODULES.get_ptr_mut(walk.mapping.module) else {
        return Err(if walk.mapping.module == JAVA { WalkEnd::JavaCode } else { WalkEnd::NotLoaded });
    };
    // SAFETY: an array's value stays valid memory; user space writes it at any time, which what is read tolerates.
    let module = unsafe { &mut *module };
    match module.state {
        state if state == State::FramePointer as u32 => return Ok((Rule::NONE, Otherwise::FramePointer)),
        state if state == State::Evicted as u32 => {
            walk.ask(Ask::Evicted, walk.mapping.module);
            return Err(WalkEnd::NotLoaded);
        }
        state if state != State::Table as u32 && state != State::TableOrFramePointer as u32 => {
            return Err(WalkEnd::NotLoaded);
        }
        _ => {}
    }
    let now = (walk.now_ns >> 30) as u32;
    if module.used != now {
        module.used = now;
    }
    let rule = rule(module, at.wrapping_sub(walk.mapping.bias))?;
    // Read again: what was kept of it over the search would have the verifier follow the search for each of its values.
    // SAFETY: as above.
    let state = unsafe { (&raw const module.state).read_volatile() };
    let by_frame_pointer = state == State::TableOrFramePointer as u32;
    Ok((rule, if by_frame_pointer { Otherwise::FramePointer } else { Otherwise::Call }))
}

/// Reads of a step, noted if they are to be.
#[inline(always)]
fn logged<const LOG: bool>(log: &mut Log, fp: FpUse) -> impl FnMut(u64) -> Option<u64> {
    if LOG && fp.is_used {
        log.use_fp();
    }
    if LOG && fp.becomes_known {
        log.know_fp();
    }
    let mut reads = 0;
    move |address| {
        let value = read(address);
        if LOG && reads == fp.read {
            log.note_fp(address, value);
        } else if LOG {
            log.note(address, value);
        }
        reads += 1;
        value
    }
}

/// The rule for an ELF virtual address; [`Rule::NONE`] if there is none.
#[inline(always)]
fn rule(module: &Module, address: u64) -> Result<Rule, WalkEnd> {
    let page = (address >> PAGE_SHIFT).wrapping_sub(u64::from(module.first_page));
    if page >= u64::from(module.page_count) {
        return Ok(Rule::NONE);
    }
    let page = arena::page(module.pages.wrapping_add(page as u32)).ok_or(WalkEnd::NotLoaded)?;
    if page.count() == 0 {
        return Ok(Rule::NONE);
    }
    let row = arena::row(page, address & ((1 << PAGE_SHIFT) - 1)).ok_or(WalkEnd::NotLoaded)?;
    arena::rule(module.rules.wrapping_add(row.rule())).ok_or(WalkEnd::NotLoaded)
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address itself and fails instead of faulting.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}
