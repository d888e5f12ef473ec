//! Side-band records (`enum perf_event_type`, include/uapi/linux/perf_event.h) as typed events.
//!
//! Parsing is a pure function of the record's bytes; a record that is too short for its type is dropped, never guessed.

use perf_event_open_sys::bindings::{
    PERF_RECORD_COMM, PERF_RECORD_EXIT, PERF_RECORD_FORK, PERF_RECORD_KSYMBOL, PERF_RECORD_LOST,
    PERF_RECORD_MISC_COMM_EXEC, PERF_RECORD_MISC_MMAP_BUILD_ID, PERF_RECORD_MMAP2,
};

/// `PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER`.
const KSYMBOL_UNREGISTER: u16 = 1;
/// `PROT_EXEC` in the `prot` word of an mmap record.
const PROT_EXEC: u32 = 4;
/// Bytes of `struct sample_id` for `PERF_SAMPLE_TID | PERF_SAMPLE_TIME`: pid u32, tid u32, time u64.
const SAMPLE_ID: usize = 16;
/// Bytes of the record header.
const HEADER: usize = 8;

/// What identifies the file of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileIdentity {
    /// GNU build id, up to 20 bytes.
    BuildId(Vec<u8>),
    /// Device and inode, where the file has no build id or the kernel does not read it (before 5.12).
    Inode {
        /// Device, as `(major, minor)`.
        device: (u32, u32),
        /// Inode number.
        inode: u64,
    },
}

/// A process event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// A new executable mapping.
    Mmap {
        /// Process id.
        pid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
        /// First address.
        start: u64,
        /// Length, bytes.
        len: u64,
        /// Offset of the first byte in the file.
        file_offset: u64,
        /// Path as the process sees it (raw bytes; `//anon` for memory without a file, `[vdso]`).
        path: Vec<u8>,
        /// Identity of the file, if it is one.
        identity: Option<FileIdentity>,
    },
    /// A thread's command name changed, by `execve` or by itself.
    Comm {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
        /// Command (raw bytes, at most 15).
        comm: Vec<u8>,
        /// By `execve`: all older mappings are gone.
        exec: bool,
    },
    /// A process or thread was made.
    Fork {
        /// Process id of the new task.
        pid: u32,
        /// Process id of its parent (equal to `pid`: a new thread).
        parent_pid: u32,
        /// Thread id of the new task.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// A thread ended.
    Exit {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// Kernel text appeared or went: a BPF program, an ftrace trampoline ...
    KernelSymbol {
        /// First address.
        start: u64,
        /// Length, bytes.
        len: u32,
        /// Name (raw bytes).
        name: Vec<u8>,
        /// True: it went.
        unregistered: bool,
        /// `CLOCK_MONOTONIC`, ns.
        time_ns: u64,
    },
    /// Records were lost: the ring buffer was full.
    Lost {
        /// Number of records.
        count: u64,
    },
}

impl ProcessEvent {
    /// When it happened, `CLOCK_MONOTONIC` ns; 0 for lost records.
    pub const fn time_ns(&self) -> u64 {
        match self {
            Self::Mmap { time_ns, .. }
            | Self::Comm { time_ns, .. }
            | Self::Fork { time_ns, .. }
            | Self::Exit { time_ns, .. }
            | Self::KernelSymbol { time_ns, .. } => *time_ns,
            Self::Lost { .. } => 0,
        }
    }
}

/// A bounds-checked view of a record's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }

    /// The NUL-terminated name that fills the rest.
    fn name(&self, at: usize) -> Option<Vec<u8>> {
        let rest = self.0.get(at..)?;
        Some(rest.split(|&b| b == 0).next().unwrap_or_default().to_vec())
    }

    /// `union` of an mmap2 record: a build id, or device and inode. Anonymous memory has inode 0.
    fn identity(&self, at: usize, misc: u16) -> Option<FileIdentity> {
        if u32::from(misc) & PERF_RECORD_MISC_MMAP_BUILD_ID != 0 {
            let len = usize::from(self.bytes::<1>(at)?[0]).min(20);
            let id = self.0.get(at + 4..at + 4 + len)?;
            return (!id.is_empty()).then(|| FileIdentity::BuildId(id.to_vec()));
        }
        let inode = self.u64(at + 8)?;
        (inode != 0).then_some(FileIdentity::Inode { device: (self.u32(at)?, self.u32(at + 4)?), inode })
    }
}

/// Reads one record, header included. `None`: a type that is of no interest, not executable, or malformed.
pub fn parse(record: &[u8]) -> Option<ProcessEvent> {
    let header = Body(record);
    let (kind, misc) = (header.u32(0)?, header.u16(4)?);
    let payload = record.get(HEADER..)?;
    // Every record ends with the sample id.
    let id_at = payload.len().checked_sub(SAMPLE_ID)?;
    let time_ns = Body(payload).u64(id_at + 8)?;
    let body = Body(&payload[..id_at]);
    match kind {
        PERF_RECORD_MMAP2 => {
            if body.u32(56)? & PROT_EXEC == 0 {
                return None;
            }
            Some(ProcessEvent::Mmap {
                pid: body.u32(0)?,
                time_ns,
                start: body.u64(8)?,
                len: body.u64(16)?,
                file_offset: body.u64(24)?,
                identity: body.identity(32, misc),
                path: body.name(64)?,
            })
        }
        PERF_RECORD_COMM => Some(ProcessEvent::Comm {
            pid: body.u32(0)?,
            tid: body.u32(4)?,
            time_ns,
            comm: body.name(8)?,
            exec: u32::from(misc) & PERF_RECORD_MISC_COMM_EXEC != 0,
        }),
        PERF_RECORD_FORK => Some(ProcessEvent::Fork {
            pid: body.u32(0)?,
            parent_pid: body.u32(4)?,
            tid: body.u32(8)?,
            time_ns,
        }),
        PERF_RECORD_EXIT => Some(ProcessEvent::Exit { pid: body.u32(0)?, tid: body.u32(8)?, time_ns }),
        PERF_RECORD_KSYMBOL => Some(ProcessEvent::KernelSymbol {
            start: body.u64(0)?,
            len: body.u32(8)?,
            unregistered: body.u16(14)? & KSYMBOL_UNREGISTER != 0,
            name: body.name(16)?,
            time_ns,
        }),
        PERF_RECORD_LOST => Some(ProcessEvent::Lost { count: body.u64(8)? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u32, misc: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(kind.to_ne_bytes());
        out.extend((misc as u16).to_ne_bytes());
        out.extend(((HEADER + body.len() + SAMPLE_ID) as u16).to_ne_bytes());
        out.extend(body);
        out.extend([7u32.to_ne_bytes(), 8u32.to_ne_bytes()].concat());
        out.extend(123_456u64.to_ne_bytes());
        out
    }

    fn mmap_body(prot: u32, identity: [u8; 24], path: &[u8]) -> Vec<u8> {
        let mut body = [42u32.to_ne_bytes(), 43u32.to_ne_bytes()].concat();
        for word in [0x1000u64, 0x2000, 0x3000] {
            body.extend(word.to_ne_bytes());
        }
        body.extend(identity);
        body.extend(prot.to_ne_bytes());
        body.extend(2u32.to_ne_bytes());
        body.extend(path);
        body.extend([0; 8]);
        body
    }

    #[test]
    fn mmap_with_build_id() {
        let mut identity = [0u8; 24];
        identity[0] = 20;
        identity[4..].fill(0xab);
        let record =
            record(PERF_RECORD_MMAP2, PERF_RECORD_MISC_MMAP_BUILD_ID, &mmap_body(5, identity, b"/bin/x"));
        let expected = ProcessEvent::Mmap {
            pid: 42,
            time_ns: 123_456,
            start: 0x1000,
            len: 0x2000,
            file_offset: 0x3000,
            path: b"/bin/x".to_vec(),
            identity: Some(FileIdentity::BuildId(vec![0xab; 20])),
        };
        assert_eq!(parse(&record), Some(expected));
    }

    #[test]
    fn mmap_with_inode_and_without_exec() {
        let mut identity = [0u8; 24];
        identity[0] = 8;
        identity[4] = 1;
        identity[8] = 99;
        let with = record(PERF_RECORD_MMAP2, 0, &mmap_body(5, identity, b"/bin/x"));
        let Some(ProcessEvent::Mmap { identity: found, .. }) = parse(&with) else { panic!("no mmap") };
        assert_eq!(found, Some(FileIdentity::Inode { device: (8, 1), inode: 99 }));
        assert_eq!(parse(&record(PERF_RECORD_MMAP2, 0, &mmap_body(3, identity, b"/bin/x"))), None);
    }

    #[test]
    fn comm_exec_and_exit() {
        let body = [&5u32.to_ne_bytes()[..], &6u32.to_ne_bytes(), b"bash\0\0\0\0"].concat();
        let event = parse(&record(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC, &body));
        let comm = b"bash".to_vec();
        assert_eq!(event, Some(ProcessEvent::Comm { pid: 5, tid: 6, time_ns: 123_456, comm, exec: true }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, kind in 0u32..24) {
            parse(&bytes);
            parse(&record(kind, 0xffff, &bytes));
        }
    }
}
