//! The side band: process events of all CPUs, in the order of their time.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use perf_event_open_sys::{
    bindings::{PERF_COUNT_SW_DUMMY, PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_TYPE_SOFTWARE, perf_event_attr},
    ioctls,
};
use rustix::{event::epoll, io::Errno};

use super::{
    record::{ProcessEvent, parse},
    ring::Ring,
    sampler::{attr, check, open},
};

/// Data bytes of each CPU's ring: about 2,000 records, some 300 program starts or 4,000 ends of processes between two
/// reads. With its head it stays below `kernel.perf_event_mlock_kb`.
const RING_BYTES: usize = 256 * 1024;

/// The reader is woken after so many bytes of records of one CPU: two or three. A program's start is 400 (static) to
/// 900 bytes of them, so that it wakes the reader while it is alive, which then reads on until nothing comes any more:
/// later, files in a chroot and the way to a perf map are gone with the process (`tests/kernel`: places, names). A
/// wake-up is paid by the process that causes it too: one for every record cost one that starts and ends 80 us.
const WAKEUP_BYTES: u32 = 256;

/// One CPU's stream.
struct Stream {
    event: OwnedFd,
    ring: Ring,
}

/// The process events of the whole machine.
pub struct Sideband {
    streams: Vec<Stream>,
    batch: Vec<ProcessEvent>,
    /// Of all streams.
    ready: OwnedFd,
    /// Of that one, as long as it is waited for: who is not waiting is not woken.
    waited: OwnedFd,
    is_waited: bool,
    build_ids: Result<(), Errno>,
}

impl Sideband {
    /// Opens and starts the stream on every CPU, with build ids in the mmap records if `build_ids` and if the kernel can.
    pub fn open(cpus: &[u32], build_ids: bool) -> io::Result<Self> {
        let mut streams = Vec::with_capacity(cpus.len());
        let mut refused = None;
        for &cpu in cpus {
            let with_ids = build_ids && refused.is_none();
            let event = match open(&mut dummy(with_ids), cpu) {
                // Before 5.12 the kernel does not know the build id bit.
                Err(error)
                    if with_ids && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG)) =>
                {
                    refused = Errno::from_io_error(&error);
                    open(&mut dummy(false), cpu)?
                }
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => continue,
                other => other?,
            };
            let ring = Ring::map(&event, RING_BYTES)?;
            streams.push(Stream { event, ring });
        }
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for stream in &streams {
            epoll::add(&ready, &stream.event, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
            // SAFETY: an open perf event; the argument is a flag word.
            check(unsafe { ioctls::ENABLE(stream.event.as_raw_fd(), 0) })?;
        }
        let waited = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&waited, &ready, epoll::EventData::new_u64(0), epoll::EventFlags::empty())?;
        let build_ids = refused.map_or(Ok(()), Err);
        Ok(Self { streams, batch: Vec::new(), ready, waited, is_waited: false, build_ids })
    }

    /// Whether the kernel knows build ids in mmap records, if it was asked for them; else how it refused.
    pub const fn build_ids(&self) -> Result<(), Errno> {
        self.build_ids
    }

    /// A descriptor that becomes readable once, after [`Sideband::wait`], when some CPU has more than a few new records. Reading
    /// them makes it quiet again.
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.waited.as_fd()
    }

    /// Lets the descriptor become readable, also for what came since the last reading.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn wait(&mut self) -> io::Result<()> {
        if !self.is_waited {
            let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
            epoll::modify(&self.waited, &self.ready, epoll::EventData::new_u64(0), once)?;
            self.is_waited = true;
        }
        Ok(())
    }

    /// Hands all new events to `each`, sorted by time. How many there were.
    pub fn read(&mut self, mut each: impl FnMut(&ProcessEvent)) -> usize {
        self.batch.clear();
        if self.is_waited {
            // Takes the readiness; which streams are ready does not matter, all are read.
            let mut event =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            self.is_waited = !matches!(epoll::wait(&self.waited, &mut event[..], Some(&at_once)), Ok(1));
        }
        for stream in &mut self.streams {
            stream.ring.read(|record| self.batch.extend(parse(record)));
        }
        self.batch.sort_by_key(ProcessEvent::time_ns);
        for event in &self.batch {
            each(event);
        }
        self.batch.len()
    }
}

fn dummy(build_id: bool) -> perf_event_attr {
    let mut attr = attr();
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.config = u64::from(PERF_COUNT_SW_DUMMY);
    attr.sample_type = u64::from(PERF_SAMPLE_TID) | u64::from(PERF_SAMPLE_TIME);
    attr.set_sample_id_all(1);
    attr.set_use_clockid(1);
    attr.clockid = libc::CLOCK_MONOTONIC;
    // mmap without mmap_data: executable mappings only.
    attr.set_mmap(1);
    attr.set_mmap2(1);
    attr.set_comm(1);
    attr.set_comm_exec(1);
    attr.set_task(1);
    attr.set_ksymbol(1);
    attr.set_build_id(u64::from(build_id));
    attr.set_watermark(1);
    attr.__bindgen_anon_2.wakeup_watermark = WAKEUP_BYTES;
    attr
}
