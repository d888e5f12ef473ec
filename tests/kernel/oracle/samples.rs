//! Samples of a running program with what an unwinder needs: user registers, a copy of the stack, mapping events.
//!
//! `perf_event_open(2)` copies them at sample time (`PERF_SAMPLE_REGS_USER`, `PERF_SAMPLE_STACK_USER`), which no profiler
//! of ours could afford, but which lets two unwinders look at the same moment.

use std::{
    io::{self, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    process::{Child, Command, Stdio},
};

use perf_event_open_sys::{
    bindings::{
        PERF_COUNT_SW_CPU_CLOCK, PERF_FLAG_FD_CLOEXEC, PERF_RECORD_SAMPLE, PERF_SAMPLE_REGS_USER,
        PERF_SAMPLE_STACK_USER, PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_TYPE_SOFTWARE, perf_event_attr,
    },
    perf_event_open,
};
use profiler::perf::{
    record::{self, ProcessEvent},
    ring::Ring,
};
use profiler_common::registers::Registers;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    param::page_size,
};

/// Samples per second of CPU time.
const FREQUENCY_HZ: u64 = 397;
/// Bytes of stack with each sample: a record's size has 16 bits, and there are registers and a header too.
pub const STACK_BYTES: u32 = 63 << 10;
/// Data bytes of each CPU's ring: at most 15 samples come between two reads, one for each 2.5 ms.
const RING_BYTES: usize = 8 << 20;
/// The rings are read at least this often.
const READ_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 40_000_000 };
/// `PERF_REG_X86_BP`, `PERF_REG_X86_SP`, `PERF_REG_X86_IP` (arch/x86/include/uapi/asm/perf_regs.h): the order in samples.
const REGISTERS: u64 = 1 << 6 | 1 << 7 | 1 << 8;
/// `PERF_SAMPLE_REGS_ABI_64`.
const ABI_64: u64 = 2;

/// One sample.
pub struct Sample {
    pub pid: u32,
    pub registers: Registers,
    /// Memory from the stack pointer up.
    pub stack: Vec<u8>,
}

/// What happened, in the order of time.
pub enum Event {
    Sample(Sample),
    Process(ProcessEvent),
}

/// A CPU's event and its ring.
struct Stream {
    event: OwnedFd,
    ring: Ring,
}

/// Runs a command to its end and records it and its children. Nothing may be lost.
pub fn record(program: &str, arguments: &[&str]) -> Vec<Event> {
    let mut child = waiting(program, arguments);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut streams: Vec<Stream> = (0..cpus as u32).map(|cpu| open(child.id(), cpu).unwrap()).collect();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut events = Vec::new();
    loop {
        let ended = child.try_wait().unwrap();
        for stream in &mut streams {
            stream.ring.read(|raw| events.extend(parse(raw)));
        }
        if let Some(status) = ended {
            assert!(status.success(), "{program}: {status}");
            break;
        }
        let mut fds: Vec<PollFd<'_>> =
            streams.iter().map(|stream| PollFd::new(&stream.event, PollFlags::IN)).collect();
        poll(&mut fds, Some(&READ_INTERVAL)).unwrap();
    }
    events.sort_by_key(|(time, _)| *time);
    events.into_iter().map(|(_, event)| event).collect()
}

/// A shell that waits for a line, and then becomes the program.
fn waiting(program: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read -r _; exec \"$@\" </dev/null", "sh", program]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn open(pid: u32, cpu: u32) -> io::Result<Stream> {
    let mut attr = perf_event_attr::default();
    attr.size = size_of::<perf_event_attr>() as u32;
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.config = u64::from(PERF_COUNT_SW_CPU_CLOCK);
    attr.set_freq(1);
    attr.__bindgen_anon_1.sample_freq = FREQUENCY_HZ;
    attr.sample_type =
        u64::from(PERF_SAMPLE_TID | PERF_SAMPLE_TIME | PERF_SAMPLE_REGS_USER | PERF_SAMPLE_STACK_USER);
    attr.sample_regs_user = REGISTERS;
    attr.sample_stack_user = STACK_BYTES;
    attr.set_disabled(1);
    attr.set_enable_on_exec(1);
    attr.set_inherit(1);
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_sample_id_all(1);
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = (RING_BYTES / 4) as u32;
    // SAFETY: attr is a valid perf_event_attr with its size set.
    let fd = unsafe {
        perf_event_open(&mut attr, pid as i32, cpu as i32, -1, u64::from(PERF_FLAG_FD_CLOEXEC) as _)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call returned a new file descriptor that nothing else owns.
    let event = unsafe { OwnedFd::from_raw_fd(fd) };
    assert!(event.as_raw_fd() >= 0 && RING_BYTES.is_multiple_of(page_size()));
    let ring = Ring::map(&event, RING_BYTES)?;
    Ok(Stream { event, ring })
}

/// A record and its time; `None` for one that says nothing of interest.
fn parse(raw: &[u8]) -> Option<(u64, Event)> {
    let kind = u32::from_ne_bytes(*raw.first_chunk()?);
    if kind != PERF_RECORD_SAMPLE {
        let event = record::parse(raw)?;
        assert!(!matches!(event, ProcessEvent::Lost { .. }), "{event:?}");
        return Some((event.time_ns(), Event::Process(event)));
    }
    let word = |at: usize| raw.get(at..)?.first_chunk().map(|raw| u64::from_ne_bytes(*raw));
    let (pid, time) = (word(8)? as u32, word(16)?);
    if word(24)? != ABI_64 {
        return None;
    }
    let registers = Registers { fp: word(32)?, sp: word(40)?, pc: word(48)?, lr: 0 };
    let size = word(56)? as usize;
    let copied = if size == 0 { 0 } else { word(64 + size)? as usize };
    let stack = raw.get(64..64 + copied)?.to_vec();
    Some((time, Event::Sample(Sample { pid, registers, stack })))
}
