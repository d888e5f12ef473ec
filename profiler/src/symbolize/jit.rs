//! Names of code that was made at run time: by the runtime's own tables where it is one that is known here (a JVM),
//! else by the perf map that it writes.
//!
//! A runtime's tables are gone with the process, and its code is moved and freed: addresses are named soon after they
//! were sampled, at each drain. The perf map is read at the end.

use std::{collections::HashMap, io};

use profiler_common::unwind::java::InterpretedFrame;

use super::{
    dwarf::{Activation, Chain},
    perf_map::PerfMap,
    process_file,
    runtime::{
        jvm::{
            Code, Fault, Frame, Jvm, Tier,
            open::{self, OpenError},
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
    /// Addresses that have not been looked at.
    pending: Vec<u64>,
    names: HashMap<u64, Result<Code, Reason>>,
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

/// What is known of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The functions active there, innermost inlined one first, or why there is no name.
    pub chain: Result<Chain, Reason>,
    /// What kind of code it is.
    pub kind: FrameKind,
}

impl JitCode {
    /// That of a process that lives, whose first such code was just seen.
    pub fn of_process(pid: u32) -> Self {
        Self {
            pid,
            map: PerfMap::of_process(pid),
            started_ns: process_file::start_ns(pid).ok(),
            runtime: Runtime::Unknown { attempts: 0 },
            pending: Vec::new(),
            names: HashMap::new(),
        }
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
        for address in self.pending.drain(..) {
            if self.names.len() >= MAX_NAMES {
                break;
            }
            if let Some(frame) = InterpretedFrame::of_word(address) {
                self.names.insert(address, interpreted(jvm, frame, is_there));
            } else if jvm.covers(address) {
                self.names.insert(address, name(jvm, address, is_there));
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

    /// Names for sorted absolute addresses.
    pub fn names(mut self, addresses: &[u64]) -> Vec<Named> {
        _ = self.look_up();
        let Self { map, runtime, mut names, .. } = self;
        let from_map = map.names(addresses);
        let named = |(&address, from_map): (&u64, Result<Vec<u8>, Reason>)| match names.remove(&address) {
            Some(Ok(code)) => of_code(&code),
            answer => {
                let chain = from_map.map(|name| vec![plain(&name)]);
                let chain = chain.map_err(|none| match (answer, &runtime) {
                    (Some(Err(reason)), _) | (None, &Runtime::Unreadable(reason)) => reason,
                    _ => none,
                });
                let is_interpreted = InterpretedFrame::of_word(address).is_some();
                Named { chain, kind: if is_interpreted { FrameKind::Interpreted } else { FrameKind::Jit } }
            }
        };
        addresses.iter().zip(from_map).map(named).collect()
    }
}

/// What changed while it was read may be whole a moment later.
fn name(jvm: &mut Jvm<ProcessMemory>, address: u64, is_there: bool) -> Result<Code, Reason> {
    if !is_there {
        return jvm.remembered(address).map_err(|_| Reason::ProcessGone);
    }
    let named = match jvm.name(address) {
        Err(Fault::Torn(_) | Fault::Unmapped(_)) => jvm.name(address),
        named => named,
    };
    named.map_err(reason_of_fault)
}

const fn reason_of_fault(fault: Fault) -> Reason {
    match fault {
        Fault::NoCode => Reason::CodeFreed,
        Fault::Torn(_) | Fault::Unmapped(_) => Reason::CodeChanged,
        Fault::Missing(_) | Fault::Table(_) => Reason::UnknownRuntime,
    }
}

/// The name of an interpreted frame.
fn interpreted(
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

fn of_code(code: &Code) -> Named {
    let kind = match code.tier {
        Tier::C1 => FrameKind::Baseline,
        Tier::C2 => FrameKind::Jit,
        Tier::Interpreter => FrameKind::Interpreted,
        Tier::NativeWrapper | Tier::Stub => FrameKind::Stub,
    };
    Named { chain: Ok(code.frames.iter().map(Frame::activation).collect()), kind }
}

fn plain(name: &[u8]) -> Activation {
    Activation { name: super::demangle::demangle(name), file: None, line: 0 }
}
