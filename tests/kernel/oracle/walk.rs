//! Our walk on recorded registers and memory, by the functions and decisions of the kernel side
//! (profiler-ebpf/src/unwind/mod.rs), and the walk of another unwinder, framehop, which shares no code with it.

use std::{ops::Range, sync::Arc};

use framehop::{
    ExplicitModuleSectionInfo, Module, Unwinder as _,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use profiler_common::{
    stack::{MAX_FRAMES, WalkEnd},
    unwind::{
        Arch,
        rule::Rule,
        step::{Caller, by_call, by_frame_pointer, by_rule},
    },
};

use super::{
    code::{Part, Process},
    samples::Sample,
};

/// A stack: the sampled instruction, then return addresses.
pub struct Walk {
    pub frames: Vec<u64>,
    pub end: WalkEnd,
    /// It went through code that the program made itself.
    pub is_jit: bool,
}

/// Walks as the kernel side does.
pub fn ours(sample: &Sample, process: &Process) -> Walk {
    let mut registers = sample.registers;
    let mut interrupted = true;
    let mut walk = Walk { frames: Vec::new(), end: WalkEnd::Truncated, is_jit: false };
    while walk.frames.len() < MAX_FRAMES {
        walk.frames.push(registers.pc);
        let at = if interrupted { registers.pc } else { registers.pc.wrapping_sub(1) };
        let Some(mapping) = process.mapping(at) else {
            walk.end = WalkEnd::NoMapping;
            break;
        };
        walk.is_jit |= mapping.code.is_none();
        let read = |address: u64| {
            let stack = word(sample, address).or_else(|| popped(sample, registers.fp, address));
            stack.or_else(|| process.word(address))
        };
        let caller = match mapping.code.as_ref().and_then(|code| code.table.as_ref()) {
            Some(table) => {
                let rule = table.lookup(at.wrapping_sub(mapping.bias));
                if rule == Rule::NONE && interrupted {
                    by_call(Arch::X86_64, &registers, read)
                } else {
                    by_rule(Arch::X86_64, rule, &registers, interrupted, read)
                }
            }
            None => by_frame_pointer(Arch::X86_64, &registers, read),
        };
        match caller {
            Ok(Caller { registers: next, interrupted: signal }) => {
                (registers, interrupted) = (next, signal);
            }
            Err(end) => {
                walk.end = end;
                break;
            }
        }
    }
    walk
}

/// A word of the stack's copy.
fn word(sample: &Sample, address: u64) -> Option<u64> {
    let at = usize::try_from(address.checked_sub(sample.registers.sp)?).ok()?;
    sample.stack.get(at..)?.first_chunk().map(|raw| u64::from_le_bytes(*raw))
}

/// A word below the stack pointer, which the kernel side reads and the copy has not: a frame pointer that was popped a
/// moment ago, for whose place compilers leave the rule that held before. It is in the register.
fn popped(sample: &Sample, fp: u64, address: u64) -> Option<u64> {
    let below = sample.registers.sp.checked_sub(address)?;
    (below <= 64).then_some(fp)
}

/// The other unwinder, for one state of a process's mappings.
pub struct Reference {
    unwinder: UnwinderX86_64<Arc<[u8]>>,
    cache: CacheX86_64,
}

impl Reference {
    pub fn new(process: &Process) -> Self {
        let mut unwinder = UnwinderX86_64::new();
        for mapping in &process.mappings {
            let Some(code) = &mapping.code else { continue };
            let range = |part: &Part| -> Range<u64> { part.address..part.address + part.bytes.len() as u64 };
            let sections = ExplicitModuleSectionInfo {
                eh_frame_svma: code.eh_frame.as_ref().map(range),
                eh_frame: code.eh_frame.as_ref().map(|part| part.bytes.clone()),
                eh_frame_hdr_svma: code.eh_frame_hdr.as_ref().map(range),
                eh_frame_hdr: code.eh_frame_hdr.as_ref().map(|part| part.bytes.clone()),
                ..ExplicitModuleSectionInfo::default()
            };
            let module = Module::new(code.name.clone(), mapping.start..mapping.end, mapping.bias, sections);
            unwinder.add_module(module);
        }
        Self { unwinder, cache: CacheX86_64::new() }
    }

    /// Its frames, and whether it came to the end of the stack.
    pub fn walk(&mut self, sample: &Sample) -> (Vec<u64>, bool) {
        let mut read = |address| word(sample, address).ok_or(());
        let registers = sample.registers;
        let start = UnwindRegsX86_64::new(registers.pc, registers.sp, registers.fp);
        let mut iter = self.unwinder.iter_frames(registers.pc, start, &mut self.cache, &mut read);
        let mut frames = Vec::new();
        while frames.len() < MAX_FRAMES {
            match iter.next() {
                Ok(Some(frame)) => frames.push(frame.address()),
                Ok(None) => return (frames, true),
                Err(_) => return (frames, false),
            }
        }
        (frames, false)
    }
}
