//! Names of code that was made at run time: by the runtime's own tables where it is one that is known here (a JVM),
//! else by the perf map that it writes.
//!
//! A runtime's tables are gone with the process, and its code is moved and freed: addresses are named soon after they
//! were sampled, at each drain. The perf map is read at the end. It says nothing of code that the runtime has answered to
//! be other code now: what the map has for that address is the other one.

use std::{collections::HashMap, io};

use profiler_common::unwind::java::{CodeFrame, CodeId, InterpretedFrame};

use super::{
    dwarf::{Activation, Chain},
    perf_map::PerfMap,
    process_file,
    runtime::{
        jvm::{
            Code, Fault, Frame, Jvm, Tier,
            attach::{self, AttachError},
            open::{self, OpenError},
            wait::Wait,
        },
        memory::ProcessMemory,
    },
};
use crate::model::{FrameKind, Reason};

/// How often a process is looked at until it counts as no JVM: it may not have come that far yet.
const MAX_ATTEMPTS: u32 = 8;
/// Most addresses named by one runtime; further ones get what the perf map has.
const MAX_NAMES: usize = 1 << 18;

/// The code that one process made at run time.
#[derive(Debug)]
pub struct JitCode {
    pid: u32,
    /// When it started, ns since boot: what has its process id later is another one.
    started_ns: Option<u64>,
    map: PerfMap,
    runtime: Runtime,
    /// What the frames of a JVM's code count from (`java::Jvm::code_base`); 0: no walk has been told.
    code_base: u64,
    /// Addresses, and frames that are none (`java::is_java_word`), that have not been looked at.
    pending: Vec<u64>,
    names: HashMap<u64, Result<Code, Reason>>,
    /// Its process was seen to be gone.
    ended: bool,
}

/// What made it.
#[derive(Debug)]
enum Runtime {
    /// Not found out yet, after so many attempts.
    Unknown { attempts: u32 },
    /// Nothing that is known here.
    Other,
    /// A JVM.
    Jvm(Box<Jvm<ProcessMemory>>),
    /// A JVM that cannot be read.
    Unreadable(Reason),
}

/// A JVM that was asked for its perf map.
#[derive(Debug)]
pub struct Asked {
    /// The process.
    pub pid: u32,
    /// Why it had to be.
    pub unknown: Fault,
    /// What came of it.
    pub outcome: Result<(), AttachError>,
}

/// What is known of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The absolute address of the code, if the frame has one.
    pub address: u64,
    /// The functions active there, innermost inlined one first, or why there is no name.
    pub chain: Result<Chain, Reason>,
    /// What kind of code it is.
    pub kind: FrameKind,
    /// What a thread waits for that blocks there.
    pub wait: Option<Wait>,
}

impl JitCode {
    /// That of a process that lives, whose first such code was just seen.
    pub fn of_process(pid: u32) -> Self {
        Self {
            pid,
            map: PerfMap::of_process(pid),
            started_ns: process_file::start_ns(pid).ok(),
            runtime: Runtime::Unknown { attempts: 0 },
            code_base: 0,
            pending: Vec::new(),
            names: HashMap::new(),
            ended: false,
        }
    }

    /// Notes where the code heaps of the JVM begin, which walks go by from now on.
    pub const fn set_code_base(&mut self, address: u64) {
        self.code_base = address;
    }

    /// The absolute address of a frame.
    fn address(&self, frame: u64) -> u64 {
        CodeFrame::of_word(frame).map_or(frame, |code| self.code_base.wrapping_add(u64::from(code.offset)))
    }

    /// Notes that an address wants a name. True if it is the first since names were looked up.
    pub fn want(&mut self, address: u64) -> bool {
        if matches!(self.runtime, Runtime::Other | Runtime::Unreadable(_)) {
            return false;
        }
        self.pending.push(address);
        self.pending.len() == 1
    }

    /// Looks up what is wanted, in the process as it is now. False: later, it is not yet known what made the code.
    pub fn look_up(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        self.find_runtime();
        let jvm = match &mut self.runtime {
            Runtime::Jvm(jvm) => jvm,
            Runtime::Unknown { .. } => return false,
            Runtime::Other | Runtime::Unreadable(_) => {
                self.pending = Vec::new();
                return true;
            }
        };
        let is_there = jvm.refresh().is_ok();
        for frame in self.pending.drain(..) {
            if self.names.len() >= MAX_NAMES {
                break;
            }
            if let Some(interpreted) = InterpretedFrame::of_word(frame) {
                self.names.insert(frame, name_interpreted(jvm, interpreted, is_there));
            } else if let Some(code) = CodeFrame::of_word(frame) {
                let address = self.code_base.wrapping_add(u64::from(code.offset));
                self.names.insert(frame, name(jvm, Some(code.code), address, is_there));
            } else if jvm.covers(frame) {
                self.names.insert(frame, name(jvm, None, frame, is_there));
            }
        }
        true
    }

    fn find_runtime(&mut self) {
        let Runtime::Unknown { attempts } = &mut self.runtime else { return };
        *attempts += 1;
        let is_last = *attempts >= MAX_ATTEMPTS;
        self.runtime = match open::open(self.pid) {
            // The memory that was opened is from now on that of this process, whatever its id is used for.
            _ if process_file::start_ns(self.pid).ok() != self.started_ns => Runtime::Other,
            Ok(jvm) => Runtime::Jvm(Box::new(jvm)),
            // Not (yet) there, or starting.
            Err(OpenError::NoJvm | OpenError::Fault(_)) if !is_last => return,
            Err(OpenError::NoJvm | OpenError::Process(_)) => Runtime::Other,
            Err(error) => Runtime::Unreadable(reason_of(&error)),
        };
    }

    /// What was named since the last such call, to be put together elsewhere: frames are looked up anew from now on.
    pub fn take_interval(&mut self) -> Self {
        let runtime = match self.runtime {
            Runtime::Unreadable(reason) => Runtime::Unreadable(reason),
            _ => Runtime::Other,
        };
        Self {
            pid: self.pid,
            map: self.map.again(),
            started_ns: self.started_ns,
            runtime,
            code_base: self.code_base,
            pending: Vec::new(),
            names: std::mem::take(&mut self.names),
            ended: self.ended,
        }
    }

    /// Whether its process was gone the last time too that this was asked.
    pub fn has_ended(&mut self) -> bool {
        let is_there = process_file::start_ns(self.pid).is_ok_and(|start| Some(start) == self.started_ns);
        std::mem::replace(&mut self.ended, !is_there) && self.ended
    }

    /// Has the process write its perf map, if it is a JVM that lives and whose own tables are not known here.
    pub fn ask_for_map(&self) -> Option<Asked> {
        if matches!(self.runtime, Runtime::Jvm(_)) {
            return None;
        }
        // No other runtime is asked: to others the signal means something else.
        let unknown = match open::open(self.pid) {
            Err(OpenError::Fault(fault @ (Fault::Missing(_) | Fault::Table(_)))) => fault,
            _ => return None,
        };
        let started_ns = self.started_ns?;
        Some(Asked { pid: self.pid, unknown, outcome: attach::write_perf_map(self.pid, started_ns) })
    }

    /// The process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The names that are known already, for frames.
    pub fn known(&self, frames: &[u64]) -> Vec<Named> {
        let none = HashMap::new();
        frames.iter().map(|&frame| self.named(frame, &none)).collect()
    }

    /// Names for distinct frames.
    pub fn names(mut self, frames: &[u64]) -> Vec<Named> {
        _ = self.look_up();
        let mut addresses: Vec<u64> = frames.iter().map(|&frame| self.address(frame)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let map = std::mem::replace(&mut self.map, PerfMap::none());
        let from_map: HashMap<u64, _> = addresses.iter().copied().zip(map.names(&addresses)).collect();
        frames.iter().map(|&frame| self.named(frame, &from_map)).collect()
    }

    fn named(&self, frame: u64, from_map: &HashMap<u64, Result<Vec<u8>, Reason>>) -> Named {
        let address = self.address(frame);
        let is_interpreted = InterpretedFrame::of_word(frame).is_some();
        let kind = if is_interpreted { FrameKind::Interpreted } else { FrameKind::Jit };
        let answer = self.names.get(&frame);
        match answer {
            Some(Ok(code)) => return of_code(address, code),
            // What is there now is something else.
            Some(&Err(reason @ (Reason::CodeChanged | Reason::CodeFreed))) if address != frame => {
                return Named { address, chain: Err(reason), kind, wait: None };
            }
            _ => {}
        }
        let chain = match from_map.get(&address) {
            Some(Ok(name)) => Ok(vec![plain(name)]),
            none => Err(match (answer, &self.runtime) {
                (Some(&Err(reason)), _) | (None, &Runtime::Unreadable(reason)) => reason,
                _ => none.and_then(|none| none.as_ref().err()).copied().unwrap_or(Reason::NotInPerfMap),
            }),
        };
        Named { address, chain, kind, wait: None }
    }
}

/// What changed while it was read may be whole a moment later.
fn name(
    jvm: &mut Jvm<ProcessMemory>,
    id: Option<CodeId>,
    address: u64,
    is_there: bool,
) -> Result<Code, Reason> {
    if !is_there {
        return jvm.remembered(address, id).map_err(|_| Reason::ProcessGone);
    }
    let mut name = || match id {
        Some(id) => jvm.name_of(id, address),
        None => jvm.name(address),
    };
    let named = match name() {
        Err(Fault::Torn(_) | Fault::Unmapped(_)) => name(),
        named => named,
    };
    named.map_err(reason_of_fault)
}

const fn reason_of_fault(fault: Fault) -> Reason {
    match fault {
        Fault::NoCode => Reason::CodeFreed,
        Fault::Torn(_) | Fault::Unmapped(_) => Reason::CodeChanged,
        Fault::Missing(_) | Fault::Table(_) | Fault::Off(_) => Reason::UnknownRuntime,
    }
}

/// The name of an interpreted frame.
fn name_interpreted(
    jvm: &mut Jvm<ProcessMemory>,
    frame: InterpretedFrame,
    is_there: bool,
) -> Result<Code, Reason> {
    if !is_there {
        return Err(Reason::ProcessGone);
    }
    jvm.interpreted(frame.method, frame.bci).map_err(reason_of_fault)
}

fn reason_of(error: &OpenError) -> Reason {
    match error {
        OpenError::Memory(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Reason::PermissionDenied
        }
        OpenError::Fault(Fault::Missing(_) | Fault::Table(_))
        | OpenError::NotHotSpot(_)
        | OpenError::Foreign => Reason::UnknownRuntime,
        OpenError::Library(reason) => *reason,
        OpenError::Elf(_) => Reason::BadElf,
        _ => Reason::ProcessGone,
    }
}

fn of_code(address: u64, code: &Code) -> Named {
    let kind = match code.tier {
        Tier::C1 => FrameKind::Baseline,
        Tier::C2 => FrameKind::Jit,
        Tier::Interpreter => FrameKind::Interpreted,
        Tier::NativeWrapper | Tier::Stub => FrameKind::Stub,
    };
    Named { address, chain: Ok(code.frames.iter().map(Frame::activation).collect()), kind, wait: code.wait() }
}

fn plain(name: &[u8]) -> Activation {
    Activation { name: super::demangle::demangle(name), file: None, line: 0 }
}
