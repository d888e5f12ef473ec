//! Probe `net`: accounts of sockets, by socket and process.
//!
//! Hooks, as BTF or raw tracepoints: `sock_send_length` and `sock_recv_length` (Linux 6.3), which run in the task that sends
//! or receives; before, the exits of the functions that they are behind (`old`). `inet_sock_set_state`, `tcp_destroy_sock`,
//! `tcp_receive_reset`, `tcp_send_reset`, `tcp_probe`, `tcp_rcv_space_adjust`, `udp_fail_queue_rcv_skb`. An iterator over the files of all tasks puts
//! in the sockets that exist at the start, and looks at all of them again whenever user space wants to know.
//!
//! Whose a connection is, is kept by socket: from the call that began it, from the listening socket that took it, and then
//! from the first process that uses it. What happens to it later, in whatever task or interrupt, is found by the socket.
//!
//! `tcp_rcv_space_adjust` tells of data that is taken out of a socket without a call to receive (`splice`): the kernel hits
//! it whenever data was copied, and `copied_seq` says how much.
//!
//! These programs interrupt each other: a packet comes in while a task is inside of one. So nothing is kept by CPU but
//! sums, which are added to atomically.

pub mod accounts;
mod connections;
pub mod member;
mod seed;

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};
use profiler_common::{
    hist,
    probe::net::{AF_UNIX, RTT_BLOCKS, Socket, TCP, flag, state},
};

use self::accounts::{Process, owner_of, place_of};
pub use self::connections::{changed, changed_by_task, destroyed, dropped, reset_in, reset_out};
pub use self::seed::seed;
use crate::{atomic::add, filter::filter_member, sched::member::pointer};
use member::net_offset;

/// `MSG_PEEK`, `MSG_ERRQUEUE` (include/linux/socket.h): what is received stays in the queue, or is no data.
pub const NO_DATA: u32 = 0x2 | 0x2000;

/// `EAGAIN`.
const WOULD_WAIT: i32 = -11;

/// The account that the current task's use of a socket belongs to.
enum Use {
    /// Not asked for.
    Unwanted,
    /// Asked for, but there is no room.
    Unknown,
    /// That one.
    Of(&'static mut Socket),
}

#[inline(always)]
fn used<const TYPED: bool>(sk: *const u8) -> Use {
    used_at::<TYPED>(sk, place_of(sk).unwrap_or(0))
}

/// The same. `place`: that of the account of the socket's owner; 0: there is none.
#[inline(always)]
fn used_at<const TYPED: bool>(sk: *const u8, place: u32) -> Use {
    if let Some(socket) = accounts::at(place) {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        if accounts::is_another::<TYPED>(sk, socket) {
            accounts::end(sk, place);
        } else if socket.tgid == tgid {
            if socket.flags & flag::INHERITED != 0 {
                socket.flags &= !flag::INHERITED;
            }
            return Use::Of(socket);
        } else {
            let Some(process) = Process::current() else { return Use::Unwanted };
            if socket.flags & flag::INHERITED != 0 {
                take_over(socket, &process);
                return Use::Of(socket);
            }
            return accounts::of_user::<TYPED>(sk, place, socket, &process).map_or(Use::Unknown, Use::Of);
        }
    }
    let family = member::family::<TYPED>(sk);
    if !accounts::is_of_interest(family) {
        return Use::Unwanted;
    }
    let Some(process) = Process::current() else { return Use::Unwanted };
    let is_connection = family != AF_UNIX
        && member::protocol::<TYPED>(sk) == TCP
        && member::state::<TYPED>(sk) != state::CLOSE;
    // Of a control group, those that were there before are not known from the start either.
    let flags = if is_connection || filter_member!(cgroup_id) != 0 { flag::EXISTED } else { 0 };
    accounts::make::<TYPED>(sk, family, flags, Some(&process))
        .map_or(Use::Unknown, |(_, socket)| Use::Of(socket))
}

#[inline(always)]
fn take_over(socket: &mut Socket, process: &Process) {
    process.owns(socket);
    socket.flags &= !flag::INHERITED;
}

/// The current task sent, or tried to. One function for all programs that tell of it.
#[inline(never)]
fn sent<const TYPED: bool>(sk: *const u8, returned: i32) {
    let (bytes, failed) = outcome(returned);
    match used::<TYPED>(sk) {
        Use::Unwanted => {}
        Use::Of(socket) => {
            add(&mut socket.tx_calls, 1);
            add(&mut socket.tx_bytes, bytes);
            if failed {
                add(&mut socket.tx_errors, 1);
            }
        }
        Use::Unknown => {
            if let Some(other) = other_of::<TYPED>(sk) {
                add(&mut other.tx_calls, 1);
                add(&mut other.tx_bytes, bytes);
                add(&mut other.tx_errors, u64::from(failed));
            }
        }
    }
}

/// The current task received, or tried to; as above.
#[inline(never)]
fn received<const TYPED: bool>(sk: *const u8, returned: i32, flags: u32) {
    let (bytes, failed) = outcome(returned);
    let bytes = if flags & NO_DATA != 0 { 0 } else { bytes };
    match used::<TYPED>(sk) {
        Use::Unwanted => {}
        Use::Of(socket) => {
            add(&mut socket.rx_calls, 1);
            add(&mut socket.rx_bytes, bytes);
            if failed {
                add(&mut socket.rx_errors, 1);
            }
        }
        Use::Unknown => {
            if let Some(other) = other_of::<TYPED>(sk) {
                add(&mut other.rx_calls, 1);
                add(&mut other.rx_bytes, bytes);
                add(&mut other.rx_errors, u64::from(failed));
            }
        }
    }
}

#[inline(always)]
fn outcome(returned: i32) -> (u64, bool) {
    let bytes = if returned > 0 { returned as u64 } else { 0 };
    (bytes, returned < 0 && returned != WOULD_WAIT)
}

#[inline(always)]
fn other_of<const TYPED: bool>(
    sk: *const u8,
) -> Option<&'static mut profiler_common::probe::net::OtherSockets> {
    accounts::other(member::family::<TYPED>(sk), member::protocol::<TYPED>(sk))
}

/// `sock_send_length(sk, ret, flags)`.
#[inline(always)]
pub fn sent_length(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    if !sk.is_null() {
        sent::<true>(sk, ctx.arg::<u64>(1) as i32);
    }
}

/// `sock_recv_length(sk, ret, flags)`.
#[inline(always)]
pub fn received_length(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    if !sk.is_null() {
        received::<true>(sk, ctx.arg::<u64>(1) as i32, ctx.arg::<u64>(2) as u32);
    }
}

/// Exit of `inet_sendmsg(sock, msg, size)` and its like, before Linux 6.3. `RETURNED`: which argument of the context is
/// what it returns.
#[inline(always)]
pub fn sent_old<const RETURNED: usize>(ctx: &FExitContext) {
    let sk = pointer::<true>(ctx.arg(0), net_offset!(socket_sk));
    if !sk.is_null() {
        sent::<true>(sk, ctx.arg::<u64>(RETURNED) as i32);
    }
}

/// Exit of `inet_recvmsg(sock, msg, size, flags)` and its like, before Linux 6.3.
#[inline(always)]
pub fn received_old(ctx: &FExitContext) {
    let sk = pointer::<true>(ctx.arg(0), net_offset!(socket_sk));
    if !sk.is_null() {
        received::<true>(sk, ctx.arg::<u64>(4) as i32, ctx.arg::<u64>(3) as u32);
    }
}

/// `tcp_rcv_space_adjust(sk)`: data may have been taken out of the receive queue, by the current task. The socket is locked.
#[inline(always)]
pub fn copied(ctx: &BtfTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    let Some(place) = place_of(sk) else { return };
    let Some(owner) = accounts::at(place) else { return };
    let seq = member::copied_seq(sk);
    let bytes = seq.wrapping_sub(owner.copied_seq);
    owner.copied_seq = seq;
    // Half of all sequence numbers lie ahead.
    if bytes == 0 || bytes > 1 << 31 {
        return;
    }
    if let Use::Of(socket) = used_at::<true>(sk, place) {
        add(&mut socket.copied_bytes, u64::from(bytes));
    }
}

/// `tcp_probe(sk, skb)`: a segment came in. The socket is locked.
#[inline(always)]
pub fn probed(ctx: &RawTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    let Some(socket) = owner_of(sk) else { return };
    let rtt_us = member::srtt_us(sk);
    if rtt_us == 0 {
        return;
    }
    socket.srtt_us = rtt_us;
    if socket.min_rtt_us == 0 || rtt_us < socket.min_rtt_us {
        socket.min_rtt_us = rtt_us;
    }
    let (block, bucket) = hist::place(u64::from(rtt_us));
    let (block, bucket) =
        if block < RTT_BLOCKS { (block, bucket) } else { (RTT_BLOCKS - 1, hist::BUCKETS - 1) };
    let Some(slot) = socket.rtt_blocks.get_mut(opaque(block)) else { return };
    if *slot == 0 {
        // User space sees from the sums if there is none left.
        *slot = accounts::take_block();
        if *slot == 0 {
            return;
        }
    }
    if let Some(block) = accounts::block(*slot)
        && let Some(number) = block.get_mut(opaque(bucket))
        && *number != u32::MAX
    {
        *number += 1;
    }
}

/// The same number, of which the compiler knows nothing any more: it would leave out the check of an index whose bounds
/// it can derive, and the verifier cannot.
#[inline(always)]
fn opaque(index: usize) -> usize {
    // SAFETY: a local number.
    unsafe { (&raw const index).read_volatile() }
}
