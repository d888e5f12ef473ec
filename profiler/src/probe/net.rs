//! Probe `net`, user side: tracepoints of sockets. It counts no samples: what it yields are accounts of sockets by process
//! ([`crate::bpf::sockets`]).

use std::{
    ops::RangeInclusive,
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use aya::{Btf, BtfError};

use super::ProbeError;
use crate::{
    bpf::{
        BpfError,
        accounts::wait_for_programs,
        load::{Attached, Kernel},
        sockets::Sockets,
        stats,
    },
    host::{self, btf},
    perf::clock::monotonic_ns,
};

/// Programs of BTF tracepoints.
const TYPED: &[(&str, &str)] = &[
    (BY_TASK, "inet_sock_set_state"),
    ("net_state", "inet_sock_set_state"),
    ("net_copied", "tcp_rcv_space_adjust"),
];

/// Of these: what is left out of it are hits that it has nothing to do with (`profiler-ebpf/src/probe/net/connections.rs`).
const BY_TASK: &str = "net_state_by_task";

/// The same of what is sent and received, since Linux 6.3 (6e6eda44b939).
const LENGTHS: &[(&str, &str)] = &[("net_sent", "sock_send_length"), ("net_received", "sock_recv_length")];

/// Programs at the exits of functions, for older kernels.
const EXITS: &[(&str, &str)] = &[
    ("net_inet_send", "inet_sendmsg"),
    ("net_inet6_send", "inet6_sendmsg"),
    ("net_unix_stream_send", "unix_stream_sendmsg"),
    ("net_unix_dgram_send", "unix_dgram_sendmsg"),
    ("net_inet_sendpage", "inet_sendpage"),
    ("net_inet_receive", "inet_recvmsg"),
    ("net_inet6_receive", "inet6_recvmsg"),
    ("net_unix_stream_receive", "unix_stream_recvmsg"),
    ("net_unix_dgram_receive", "unix_dgram_recvmsg"),
];

/// Programs of raw tracepoints.
const RAW: &[(&str, &str)] = &[
    ("net_destroyed", "tcp_destroy_sock"),
    ("net_reset_in", "tcp_receive_reset"),
    ("net_reset_out", "tcp_send_reset"),
    ("net_dropped", "udp_fail_queue_rcv_skb"),
];

/// The same of round trips.
const ROUND_TRIPS: &[(&str, &str)] = &[("net_probed", "tcp_probe")];

/// The iterator over the open files of all tasks.
const SEED: &str = "net_seed";

/// Oldest kernel it works on, (major, minor).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 8);

/// `doctor` checks that must pass.
pub const REQUIRES: &[&str] = &["bpf", "btf"];

/// Kernel hooks, for documents.
pub const HOOKS: &str = "BTF tracepoints: sock_send_length, sock_recv_length (before Linux 6.3: fexit of inet_sendmsg, \
inet_recvmsg and their like), inet_sock_set_state, tcp_rcv_space_adjust; raw tracepoints: tcp_destroy_sock, \
tcp_receive_reset, tcp_send_reset, tcp_probe, udp_fail_queue_rcv_skb; iterator: task_file";

/// How often all sockets are looked at, so that those that went unseen do not fill the room.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Sockets that there is room for: twice as many as there are, within these bounds.
const SOCKETS: RangeInclusive<u64> = 16_384..=1_048_576;

/// Room for accounts: twice as many as there are sockets now.
pub fn room() -> u32 {
    let room = host::sockets::in_use().saturating_mul(2).clamp(*SOCKETS.start(), *SOCKETS.end());
    u32::try_from(room.next_power_of_two()).unwrap_or(u32::MAX)
}

/// The attached probe.
pub struct NetProbe {
    attached: Vec<Attached>,
    /// What it yields.
    pub sockets: Sockets,
    /// When all sockets are to be looked at again.
    look_at: Instant,
    looks: u32,
    start_ns: u64,
}

impl NetProbe {
    /// Loads and attaches the programs, and gives each socket that there is an account; sockets are accounted from then on.
    /// `sockets`: how many there is room for; `round_trips`: those are measured.
    pub fn open(kernel: &mut Kernel, sockets: u32, round_trips: bool) -> Result<Self, ProbeError> {
        let btf = Btf::from_sys_fs().map_err(|error: BtfError| ProbeError::KernelTypes(error.to_string()))?;
        let sockets = Sockets::new(&mut kernel.ebpf, sockets)?;
        let raw = || RAW.iter().chain(ROUND_TRIPS.iter().filter(|_| round_trips));
        for &(program, _) in raw() {
            kernel.load_program(program)?;
        }
        kernel.load_iterator(SEED, "task_file", &btf)?;
        for &(program, tracepoint) in TYPED {
            kernel.load_typed(program, tracepoint, &btf)?;
        }
        let has_lengths = has("sock_send_length");
        if has_lengths {
            for &(program, tracepoint) in LENGTHS {
                kernel.load_typed(program, tracepoint, &btf)?;
            }
        }
        let mut attached = Vec::new();
        for &(program, tracepoint) in raw() {
            attached.push(kernel.attach(program, tracepoint)?);
        }
        for &(program, _) in TYPED {
            attached.push(kernel.attach_typed(program)?);
        }
        let mut probe = Self { attached, sockets, look_at: Instant::now(), looks: 0, start_ns: 0 };
        // Whose the sockets are is known before anything is counted.
        probe.look(kernel)?;
        if has_lengths {
            for &(program, _) in LENGTHS {
                probe.attached.push(kernel.attach_typed(program)?);
            }
        } else {
            for &(program, function) in EXITS {
                probe.attached.push(kernel.attach_exit(program, function, &btf)?);
            }
        }
        probe.start_ns = monotonic_ns();
        Ok(probe)
    }

    /// Looks at all sockets that tasks have open: what no event tells is known then.
    pub fn look(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        self.looks += 1;
        self.look_at = Instant::now() + LOOK_INTERVAL;
        let begun_ns = monotonic_ns();
        self.sockets.begin_look(self.looks)?;
        kernel.iterate(SEED)?;
        self.sockets.sweep(self.looks, begun_ns)
    }

    /// Looks at all sockets if it is time to.
    pub fn look_if_due(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        if self.look_at <= Instant::now() { self.look(kernel) } else { Ok(()) }
    }

    /// Stops; gives the time (`CLOCK_MONOTONIC`, ns) from which on sockets are not accounted any more.
    pub fn disable(&mut self) -> u64 {
        self.attached.clear();
        wait_for_programs();
        monotonic_ns()
    }

    /// Runs of programs that the kernel left out, and that had something to tell.
    pub fn missed(kernel: &Kernel) -> u64 {
        let by_task = kernel.ebpf.program(BY_TASK).and_then(|program| program.fd().ok());
        stats::missed(&kernel.ebpf).saturating_sub(by_task.map_or(0, |fd| stats::missed_of(fd.as_fd())))
    }

    /// When it began, `CLOCK_MONOTONIC`, ns.
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
}

/// Whether the kernel has that tracepoint.
fn has(tracepoint: &str) -> bool {
    btf::typedef_id(Path::new(btf::VMLINUX), &format!("btf_trace_{tracepoint}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_twice_the_sockets() {
        assert!(room() >= 16_384 && room().is_power_of_two());
    }

    #[test]
    fn the_documents_name_every_hook() {
        for &(_, tracepoint) in TYPED.iter().chain(LENGTHS).chain(RAW).chain(ROUND_TRIPS) {
            assert!(HOOKS.contains(tracepoint), "{tracepoint}");
        }
    }
}
