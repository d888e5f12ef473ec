//! The walk by tables during a recording: answers the kernel side's requests from what the symbolizer knows of
//! processes and files.

use std::collections::BTreeSet;

use profiler_common::unwind::map::{Ask, Request};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    SessionError,
    jvms::{self, Answer, Incarnation, Jvms},
};
use crate::{
    bpf::{
        load::Kernel,
        unwind::{Requests, UnwindMaps},
    },
    perf::{clock::monotonic_ns, record::ProcessEvent},
    symbolize::{CodeFile, ModuleKey, Symbolizer, mappings::Mapping},
    unwind::{
        Code, FileId, Opened, Range, Stats, UnwindError, Unwinder,
        builder::{Built, Source},
    },
};

/// The side of a recording that keeps the kernel's walk supplied.
pub struct Unwinding {
    unwinder: Unwinder,
    jvms: Jvms,
    requests: AsyncFd<Requests>,
    /// Processes with new mappings since the kernel side was told.
    changed: BTreeSet<u32>,
    /// Events were lost: ends of processes may be among them.
    lost: bool,
}

impl Unwinding {
    /// Takes the maps out of the object, and attaches the programs that follow which processes need tables.
    pub fn start(kernel: &mut Kernel, budget: u64) -> Result<Self, SessionError> {
        kernel.follow_programs()?;
        let maps = UnwindMaps::new(&mut kernel.ebpf)?;
        let requests = Requests::new(&mut kernel.ebpf)?;
        // SAFETY: the ring owns the descriptor it gives, gives the same one each time, and keeps it open until dropped.
        let requests = unsafe { AsyncFd::register_with_interest(requests, Interest::READABLE) }
            .map_err(|error| SessionError::Unwinding(error.into()))?;
        let unwinder = Unwinder::new(maps, budget).map_err(|error| match error {
            UnwindError::Bpf(error) => SessionError::Bpf(error),
            UnwindError::Thread(error) => SessionError::Unwinding(error),
        })?;
        let jvms = Jvms::start().map_err(SessionError::Unwinding)?;
        Ok(Self { unwinder, jvms, requests, changed: BTreeSet::new(), lost: false })
    }

    /// Makes the tables of a process that is going to be sampled.
    pub fn prepare(&mut self, pid: u32, symbolizer: &mut Symbolizer) {
        if let Some(mappings) = symbolizer.code_mappings(pid) {
            let ranges = ranges(&mappings);
            self.unwinder.prepare(&ranges, &mut |file| open_file(file, symbolizer));
        }
    }

    /// Waits for requests, or for a table. Requests are then to be answered, behind the events that came before them.
    pub async fn next(&mut self) -> Result<Option<Built>, SessionError> {
        tokio::select! {
            built = self.unwinder.next_table() => match built {
                Some(built) => Ok(Some(built)),
                None => std::future::pending().await,
            },
            found = self.jvms.next() => {
                self.changed.insert(found.process.pid);
                self.jvms.add(found);
                Ok(None)
            }
            ready = self.requests.readable() => {
                ready.map_err(SessionError::Unwinding)?.clear_ready();
                Ok(None)
            }
        }
    }

    /// Takes in a table.
    pub fn add_table(&mut self, built: Built) -> Result<(), SessionError> {
        Ok(self.unwinder.add_table(built)?)
    }

    /// Answers all requests. Every event that came before them must have been observed.
    pub fn answer(&mut self, symbolizer: &mut Symbolizer) -> Result<(), SessionError> {
        self.tell_changes(symbolizer)?;
        while let Some(request) = self.requests.get_mut().take() {
            if request.ask == Ask::Evicted as u32 {
                self.unwinder.want_again(&request, &mut |file| open_file(file, symbolizer));
            } else {
                self.tell(&request, symbolizer)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, request: &Request, symbolizer: &mut Symbolizer) -> Result<(), SessionError> {
        let Request { pid, ask, incarnation, .. } = *request;
        let is_new = self.set(pid, incarnation, symbolizer)?;
        // A sample that found nothing may have put its question in the place of an answer that came at that moment: what is
        // known is told once more.
        if is_new
            || ask == Ask::Executed as u32
            || ask == Ask::UnknownProcess as u32 && self.unwinder.tell_again(pid)
        {
            return Ok(());
        }
        // What is still not known is looked for in /proc, from time to time: an event may have been lost.
        if !symbolizer.reread(pid) || !self.set(pid, incarnation, symbolizer)? {
            self.unwinder.put_off(pid);
        }
        Ok(())
    }

    fn set(&mut self, pid: u32, incarnation: u64, symbolizer: &mut Symbolizer) -> Result<bool, SessionError> {
        let mappings = symbolizer.code_mappings(pid).unwrap_or_default();
        let mut ranges = ranges(&mappings);
        if symbolizer.is_jvm(&mappings) {
            ranges = match self.jvms.answer(Incarnation { pid, incarnation }) {
                Answer::Later => jvms::without_heaps(ranges),
                Answer::Layout(layout) => match layout.jvm(incarnation) {
                    Some(jvm) if self.unwinder.set_jvm(pid, jvm) => {
                        symbolizer.told_code_base(pid, jvm.code_base);
                        jvms::with_heaps(ranges, layout)
                    }
                    _ => ranges,
                },
                Answer::None => ranges,
            };
        }
        let is_new =
            self.unwinder.set_process(pid, incarnation, &ranges, &mut |file| open_file(file, symbolizer))?;
        symbolizer.told(pid, monotonic_ns());
        Ok(is_new)
    }

    /// Takes in an event that the symbolizer has observed.
    pub fn observe(&mut self, event: &ProcessEvent) {
        match event {
            ProcessEvent::Mmap { pid, .. } if self.unwinder.knows(*pid) => _ = self.changed.insert(*pid),
            ProcessEvent::Comm { pid, exec: true, .. } => self.forget(*pid),
            ProcessEvent::Exit { pid, tid, .. } if pid == tid => self.forget(*pid),
            ProcessEvent::Lost { .. } => self.lost = true,
            _ => {}
        }
    }

    fn forget(&mut self, pid: u32) {
        self.unwinder.forget(pid);
        self.jvms.forget(pid);
    }

    /// Tells the kernel side of the mappings that appeared.
    pub fn tell_changes(&mut self, symbolizer: &mut Symbolizer) -> Result<(), SessionError> {
        while let Some(pid) = self.changed.pop_first() {
            if let Some(incarnation) = self.unwinder.incarnation(pid) {
                self.set(pid, incarnation, symbolizer)?;
            }
        }
        Ok(())
    }

    /// A window was drained, for which the kernel waited until no program of the one before was running.
    pub fn window_ended(&mut self) {
        self.unwinder.window_ended();
        if std::mem::take(&mut self.lost) {
            self.unwinder.forget_gone(Symbolizer::is_alive);
            self.jvms.forget_gone(Symbolizer::is_alive);
        }
    }

    /// What it took until now.
    pub fn stats(&self) -> Stats {
        self.unwinder.stats()
    }

    /// Whether there is room for few more files.
    pub const fn is_worn(&self) -> bool {
        self.unwinder.is_worn()
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.unwinder.memory() + self.requests.get_ref().memory()
    }
}

/// Executable memory as the walk needs it.
fn ranges(mappings: &[Mapping]) -> Vec<Range> {
    let range = |mapping: &Mapping| {
        let code = match mapping.module {
            ModuleKey::ANONYMOUS => Code::Anonymous,
            module => Code::File { file: FileId(module.index()?), offset: mapping.file_offset },
        };
        Some(Range { start: mapping.start, end: mapping.end, code })
    };
    mappings.iter().filter_map(range).collect()
}

fn open_file(file: FileId, symbolizer: &Symbolizer) -> Option<Opened> {
    let (code, headers) = symbolizer.open_code(ModuleKey::of_index(file.0))?;
    let source = match code {
        CodeFile::File(file) => Source::File(file),
        CodeFile::Image(image) => Source::Memory(image),
    };
    Some(Opened { source, headers })
}
