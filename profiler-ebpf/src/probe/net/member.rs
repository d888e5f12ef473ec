//! What sockets say of themselves. `TYPED`: the verifier knows the address as a `struct sock`, whose own members are then
//! read by plain loads; members of the structures that begin with one are always read by `bpf_probe_read_kernel`.

use aya_ebpf::Global;
use profiler_common::probe::net::{AF_INET6, NetOffsets, Socket};

use crate::sched::member::{get, pointer, probe};

#[unsafe(no_mangle)]
pub static NET_OFFSETS: Global<NetOffsets> = Global::new(NetOffsets::UNKNOWN);

/// One of the offsets, never a copy of all (see `crate::task`).
macro_rules! net_offset {
    ($member:ident) => {{
        let offsets = (&raw const $crate::probe::net::member::NET_OFFSETS)
            .cast::<profiler_common::probe::net::NetOffsets>();
        // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        unsafe { (&raw const (*offsets).$member).read_volatile() }
    }};
}
pub(crate) use net_offset;

/// Its address family.
#[inline(always)]
pub fn family<const TYPED: bool>(sk: *const u8) -> u16 {
    get::<TYPED, u16>(sk, net_offset!(family))
}

/// Its protocol.
#[inline(always)]
pub fn protocol<const TYPED: bool>(sk: *const u8) -> u16 {
    get::<TYPED, u16>(sk, net_offset!(protocol))
}

/// Its local port as long as it is bound, host byte order.
#[inline(always)]
pub fn bound_port<const TYPED: bool>(sk: *const u8) -> u16 {
    get::<TYPED, u16>(sk, net_offset!(num))
}

/// Its TCP state.
#[inline(always)]
pub fn state<const TYPED: bool>(sk: *const u8) -> u32 {
    u32::from(get::<TYPED, u8>(sk, net_offset!(state)))
}

/// The error that it has for its process.
#[inline(always)]
pub fn error(sk: *const u8) -> u32 {
    get::<false, u32>(sk, net_offset!(err))
}

/// Packets that it dropped.
#[inline(always)]
pub fn drops(sk: *const u8) -> u32 {
    let drops = get::<false, u32>(sk, net_offset!(drops));
    if net_offset!(drop_counters) == 0 {
        return drops;
    }
    // Of UDP since Linux 6.18, by NUMA node.
    let counters = pointer::<false>(sk, net_offset!(drop_counters));
    if counters.is_null() {
        return drops;
    }
    let of_nodes = get::<false, u32>(counters, net_offset!(drops0))
        .wrapping_add(get::<false, u32>(counters, net_offset!(drops1)));
    drops.wrapping_add(of_nodes)
}

/// Inode number of its network namespace.
#[inline(always)]
pub fn namespace(sk: *const u8) -> u32 {
    get::<false, u32>(pointer::<false>(sk, net_offset!(net)), net_offset!(net_inum))
}

/// Smoothed round-trip time, us.
#[inline(always)]
pub fn srtt_us(sk: *const u8) -> u32 {
    get::<false, u32>(sk, net_offset!(srtt_us)) >> 3
}

/// Up to where data was taken out of the receive queue.
#[inline(always)]
pub fn copied_seq(sk: *const u8) -> u32 {
    get::<false, u32>(sk, net_offset!(copied_seq))
}

/// Segments that it sent again.
#[inline(always)]
pub fn retransmits(sk: *const u8) -> u32 {
    get::<false, u32>(sk, net_offset!(total_retrans))
}

/// Its local address.
#[inline(always)]
pub fn local(sk: *const u8, family: u16) -> [u8; 16] {
    address(sk, family, net_offset!(rcv_saddr), net_offset!(v6_rcv_saddr))
}

#[inline(always)]
fn address(sk: *const u8, family: u16, v4: u32, v6: u32) -> [u8; 16] {
    let at = |offset: u32| sk.wrapping_add(offset as usize);
    if family == AF_INET6 {
        return probe(at(v6).cast()).unwrap_or_default();
    }
    let [a, b, c, d] = probe::<[u8; 4]>(at(v4).cast()).unwrap_or_default();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Reads the addresses and ports.
#[inline(always)]
pub fn addresses(sk: *const u8, socket: &mut Socket) {
    socket.local = local(sk, socket.family);
    socket.remote = address(sk, socket.family, net_offset!(daddr), net_offset!(v6_daddr));
    socket.local_port = u16::from_be(get::<false, u16>(sk, net_offset!(sport)));
    socket.remote_port = u16::from_be(get::<false, u16>(sk, net_offset!(dport)));
}
