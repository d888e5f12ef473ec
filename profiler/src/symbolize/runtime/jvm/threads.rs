//! The threads of a JVM: what each is doing as the JVM sees it, what it has allocated, and whose monitor it waits for.
//!
//! Source: share/runtime/{threadSMR,javaThread,osThread,thread,objectMonitor}.hpp, javaFrameAnchor.hpp. Threads come and go
//! while they are read: what makes no sense is left out.

use std::sync::Arc;

use super::{
    Fault, Jvm, MAX_READ,
    code::{Code, Tier},
    objects::Objects,
    vmstructs::{Scalar, Tables},
};
use crate::symbolize::runtime::memory::Memory;

/// Most threads that are read.
const MAX_THREADS: u64 = 65_536;
/// Offset of the `Method*` from the frame pointer of an interpreted frame (cpu/x86/frame_x86.hpp).
const INTERPRETED_METHOD: u64 = 24;

/// What a thread is doing (`ThreadState` of osThread.hpp, of which the numbers are the same from JDK 8 to 27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It is being made.
    Starting,
    /// It runs, or could, or is in native code or in a system call.
    Runnable,
    /// It waits to enter a monitor.
    Blocked,
    /// It is parked or sleeps, or waits for something of the JVM itself.
    Waiting,
    /// It is in `Object.wait`.
    ObjectWait,
    /// It is ending.
    Ending,
}

impl State {
    /// Stable key (JSON), and the word of tables.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Runnable => "runnable",
            Self::Blocked => "blocked",
            Self::Waiting => "waiting",
            Self::ObjectWait => "object-wait",
            Self::Ending => "ending",
        }
    }

    const fn of(number: i64) -> Option<Self> {
        Some(match number {
            0 | 1 => Self::Starting,
            2 => Self::Runnable,
            3 => Self::Blocked,
            // Stopped by a debugger; asleep, which no JDK from 9 on says.
            4 | 6 | 7 => Self::Waiting,
            5 => Self::ObjectWait,
            8 => Self::Ending,
            _ => return None,
        })
    }
}

/// A Java thread at a moment. Threads of the JVM itself (compilers, collectors) are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JavaThread {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Its name as Java has it, cleaned; `None`: it cannot be read now.
    pub name: Option<String>,
    /// What it is doing; `None`: JDK 8 does not export it.
    pub state: Option<State>,
    /// Bytes of the heap that it has taken since it was made.
    pub allocated_bytes: Option<u64>,
    /// Its innermost Java code, unless it runs there.
    pub innermost: Option<Arc<Code>>,
    /// Class of the object whose monitor it waits for; empty: it is not known.
    pub monitor: Option<String>,
}

/// Where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    list: List,
    osthread: u64,
    thread_id: Scalar,
    state: Option<Scalar>,
    allocated: Option<u64>,
    /// Offsets of the buffer that a thread allocates from, and in it of its start and of what is free.
    tlab: Option<[u64; 3]>,
    pending_monitor: Option<u64>,
    anchor: u64,
    /// In the anchor: stack pointer, program counter, frame pointer.
    last_java: [u64; 3],
}

/// How threads are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// JDK 8 (and 9): the first, which leads to the next.
    Chain { first: u64, next: u64 },
    /// From JDK 10 on: an array.
    Array { list: u64, len: Scalar, threads: u64 },
}

/// What is read of a thread before its code has a name.
#[derive(Clone, Copy, Debug)]
struct Raw {
    /// Address of the `JavaThread`.
    address: u64,
    tid: u32,
    state: Option<State>,
    allocated_bytes: Option<u64>,
    /// Stack pointer, program counter and frame pointer of the last Java code, if it is not running.
    last_java: [u64; 3],
    /// Address of the monitor that it waits for; 0: none.
    monitor: u64,
}

impl Threads {
    /// By a libjvm's tables.
    ///
    /// # Errors
    /// Something is not exported.
    fn new(tables: &Tables) -> Result<Self, Fault> {
        let offset = |name: &'static str| tables.offset(name).ok_or(Fault::Missing(name));
        let scalar = |name: &'static str| tables.scalar(name).ok_or(Fault::Missing(name));
        const LIST: &str = "ThreadsSMRSupport::_java_thread_list";
        const FIRST: &str = "Threads::_thread_list";
        let list = match tables.address(LIST) {
            Some(list) => List::Array {
                list,
                len: scalar("ThreadsList::_length")?,
                threads: offset("ThreadsList::_threads")?,
            },
            None => List::Chain {
                first: tables.address(FIRST).ok_or(Fault::Missing(FIRST))?,
                next: offset("JavaThread::_next")?,
            },
        };
        let tlab = ["Thread::_tlab", "ThreadLocalAllocBuffer::_start", "ThreadLocalAllocBuffer::_top"];
        let tlab = tlab.map(|name| tables.offset(name));
        Ok(Self {
            list,
            // Moved in JDK 19.
            osthread: tables
                .offset("Thread::_osthread")
                .map_or_else(|| offset("JavaThread::_osthread"), Ok)?,
            thread_id: scalar("OSThread::_thread_id")?,
            state: tables.scalar("OSThread::_state"),
            allocated: tables.offset("Thread::_allocated_bytes"),
            tlab: if let [Some(tlab), Some(start), Some(top)] = tlab {
                Some([tlab, start, top])
            } else {
                None
            },
            // Of `Thread` until JDK 14.
            pending_monitor: tables
                .offset("JavaThread::_current_pending_monitor")
                .or_else(|| tables.offset("Thread::_current_pending_monitor")),
            anchor: offset("JavaThread::_anchor")?,
            last_java: [
                offset("JavaFrameAnchor::_last_Java_sp")?,
                offset("JavaFrameAnchor::_last_Java_pc")?,
                offset("JavaFrameAnchor::_last_Java_fp")?,
            ],
        })
    }

    /// The addresses of all `JavaThread`s.
    fn addresses(&self, memory: &impl Memory) -> Result<Vec<u64>, Fault> {
        match self.list {
            List::Chain { first, next } => {
                let mut found = Vec::new();
                let mut at = memory.u64(first)?;
                while at != 0 && (found.len() as u64) < MAX_THREADS {
                    found.push(at);
                    at = memory.u64(at.wrapping_add(next))?;
                }
                Ok(found)
            }
            List::Array { list, len, threads } => {
                let list = memory.u64(list)?;
                let len = u64::try_from(len.get(memory, list)?).unwrap_or(0).min(MAX_THREADS);
                let threads = memory.u64(list.wrapping_add(threads))?;
                let bytes = memory.bytes(threads, len as usize * 8)?;
                Ok(bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect())
            }
        }
    }

    /// The thread at an address.
    fn raw(&self, memory: &impl Memory, thread: u64) -> Result<Raw, Fault> {
        let word = |offset: u64| memory.u64(thread.wrapping_add(offset));
        let osthread = word(self.osthread)?;
        let tid = u32::try_from(self.thread_id.get(memory, osthread)?).ok().filter(|&tid| tid != 0);
        let state = self
            .state
            .map(|state| State::of(state.get(memory, osthread)?).ok_or(Fault::Torn("the state of a thread")));
        let anchor = |offset: u64| word(self.anchor + offset);
        let [sp, pc, fp] = self.last_java;
        Ok(Raw {
            address: thread,
            tid: tid.ok_or(Fault::Torn("a thread id"))?,
            state: state.transpose()?,
            allocated_bytes: self.allocated(memory, thread)?,
            last_java: [anchor(sp)?, anchor(pc)?, anchor(fp)?],
            monitor: self.pending_monitor.map(word).transpose()?.unwrap_or(0),
        })
    }

    /// What was taken of buffers that are full or were given back, and of the present one
    /// (`Thread::cooked_allocated_bytes`).
    fn allocated(&self, memory: &impl Memory, thread: u64) -> Result<Option<u64>, Fault> {
        let Some(allocated) = self.allocated else { return Ok(None) };
        let whole = memory.u64(thread.wrapping_add(allocated))?;
        let Some([tlab, start, top]) = self.tlab else { return Ok(Some(whole)) };
        let at = |offset: u64| memory.u64(thread.wrapping_add(tlab + offset));
        // Largest buffers are some MiB; more is one that is just exchanged.
        let used = at(top)?.checked_sub(at(start)?).filter(|&used| used < 1 << 30).unwrap_or(0);
        Ok(Some(whole.saturating_add(used)))
    }
}

impl Raw {
    /// The address that its innermost Java frame goes on at; `None`: it runs, or was never in Java.
    fn java_pc(&self, memory: &impl Memory) -> Result<Option<u64>, Fault> {
        let [sp, pc, _] = self.last_java;
        Ok(match (sp, pc) {
            (0, _) => None,
            (sp, 0) => Some(memory.u64(sp.wrapping_sub(8))?),
            (_, pc) => Some(pc),
        })
    }

    /// The `Method*` of that frame, if it is one of the interpreter.
    fn interpreted_method(&self, memory: &impl Memory, code: &Code) -> Result<Option<u64>, Fault> {
        if code.tier != Tier::Interpreter {
            return Ok(None);
        }
        let [.., fp] = self.last_java;
        Ok(Some(memory.u64(fp.wrapping_sub(INTERPRETED_METHOD))?))
    }
}

impl<M: Memory> Jvm<M> {
    /// Its Java threads, as they are now. Those that cannot be read, because they just come or go, are left out.
    ///
    /// # Errors
    /// What tells of threads is not exported, or the process is gone.
    pub fn threads(&mut self) -> Result<Vec<JavaThread>, Fault> {
        self.refresh()?;
        let threads = Threads::new(&self.tables)?;
        let addresses = threads.addresses(&self.memory)?;
        let raw = addresses.into_iter().filter_map(|address| threads.raw(&self.memory, address).ok());
        Ok(raw.collect::<Vec<_>>().into_iter().map(|raw| self.java_thread(&raw)).collect())
    }

    /// Those that wait for a monitor now. Reads a word of each thread.
    ///
    /// # Errors
    /// As `threads`.
    pub fn contended(&mut self) -> Result<Vec<JavaThread>, Fault> {
        self.memory.allow(MAX_READ);
        let threads = Threads::new(&self.tables)?;
        let Some(pending) = threads.pending_monitor else { return Ok(Vec::new()) };
        let addresses = threads.addresses(&self.memory)?.into_iter();
        let waiting = addresses
            .filter(|thread| self.memory.u64(thread.wrapping_add(pending)).is_ok_and(|monitor| monitor != 0));
        let waiting: Vec<u64> = waiting.collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        self.refresh()?;
        let raw = waiting.into_iter().filter_map(|address| threads.raw(&self.memory, address).ok());
        Ok(raw.collect::<Vec<_>>().into_iter().map(|raw| self.java_thread(&raw)).collect())
    }

    fn java_thread(&mut self, raw: &Raw) -> JavaThread {
        let name = self.objects().and_then(|o| o.thread_name(&self.memory, &self.layout, raw.address)).ok();
        let monitor = (raw.monitor != 0).then(|| self.monitor_class(raw.monitor).unwrap_or_default());
        let innermost = self.innermost(raw).unwrap_or_default();
        JavaThread {
            tid: raw.tid,
            name,
            state: raw.state,
            allocated_bytes: raw.allocated_bytes,
            innermost: innermost.map(Arc::new),
            monitor,
        }
    }

    fn monitor_class(&mut self, monitor: u64) -> Result<String, Fault> {
        self.objects()?.class_of_monitor(&self.memory, &self.layout, monitor)
    }

    fn objects(&mut self) -> Result<Objects, Fault> {
        let (memory, tables, major) = (&self.memory, &self.tables, self.layout.major);
        *self.objects.get_or_insert_with(|| Objects::new(memory, tables, major))
    }

    fn innermost(&mut self, raw: &Raw) -> Result<Option<Code>, Fault> {
        let Some(pc) = raw.java_pc(&self.memory)? else { return Ok(None) };
        // Inside the call instruction.
        let code = self.name(pc.wrapping_sub(1))?;
        if let Some(method) = raw.interpreted_method(&self.memory, &code)? {
            return self.interpreted(method, None).map(Some);
        }
        // What a stub is called from tells more.
        let caller = if code.tier == Tier::Stub { self.caller_of_stub(raw, pc) } else { Err(Fault::NoCode) };
        let frames = code.frames.into_iter().chain(caller.into_iter().flat_map(|caller| caller.frames));
        Ok(Some(Code { frames: frames.collect(), ..code }))
    }

    /// The code that a stub returns to: its frame has a fixed size.
    fn caller_of_stub(&mut self, raw: &Raw, pc: u64) -> Result<Code, Fault> {
        let known = self.known.latest(pc.wrapping_sub(1)).ok_or(Fault::NoCode)?;
        let words =
            u64::try_from(known.blob.frame_size).ok().filter(|&words| words > 0).ok_or(Fault::NoCode)?;
        let [sp, ..] = raw.last_java;
        let pc = self.memory.u64(sp.wrapping_add(8 * words).wrapping_sub(8))?;
        self.name(pc.wrapping_sub(1))
    }
}
