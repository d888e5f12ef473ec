//! What becomes of connections: begun, taken, there, reset, closed, gone.

use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use profiler_common::probe::net::{Socket, TCP, flag, state};

use super::{
    accounts::{self, Process, now, owner_of, place_of},
    member, take_over,
};
use crate::{atomic::add, task};

/// Whether a socket comes to that state by what its task does, and never by a packet.
#[inline(always)]
fn is_by_task(new: u32) -> bool {
    matches!(new, state::SYN_SENT | state::LISTEN | state::FIN_WAIT1 | state::LAST_ACK)
}

/// `inet_sock_set_state(sk, oldstate, newstate)`, by the current task. A packet can interrupt this, and bring another socket
/// to another state: the kernel does not run a program inside of itself, so that is another one's to tell.
#[inline(always)]
pub fn changed_by_task(ctx: &BtfTracePointContext) {
    let (sk, new): (*const u8, _) = (ctx.arg(0), ctx.arg::<u64>(2) as u32);
    if !is_by_task(new) || member::protocol::<true>(sk) != TCP {
        return;
    }
    match new {
        state::SYN_SENT => began(sk),
        state::LISTEN => listens(sk),
        _ => {
            if let Some(socket) = owner_of(sk) {
                came_to(sk, socket, ctx.arg::<u64>(1) as u32, new);
                closing(socket);
            }
        }
    }
}

/// The same by a packet, mostly, whatever the current task is.
#[inline(always)]
pub fn changed(ctx: &BtfTracePointContext) {
    let (sk, new): (*const u8, _) = (ctx.arg(0), ctx.arg::<u64>(2) as u32);
    if is_by_task(new) || member::protocol::<true>(sk) != TCP {
        return;
    }
    let old = ctx.arg::<u64>(1) as u32;
    if new == state::ESTABLISHED && old != state::SYN_SENT {
        return accepted(sk);
    }
    let Some(place) = place_of(sk) else { return };
    let Some(socket) = accounts::at(place) else { return };
    came_to(sk, socket, old, new);
    match new {
        state::ESTABLISHED => established(sk, socket),
        state::CLOSE => closed(sk, place, socket),
        _ => {}
    }
}

#[inline(always)]
fn came_to(sk: *const u8, socket: &mut Socket, old: u32, new: u32) {
    socket.state = new;
    // That it was there before may have gone unseen.
    if old == state::ESTABLISHED && socket.established_ns == 0 && socket.flags & flag::CONNECTS != 0 {
        established(sk, socket);
    }
    // From its close on, no look at open files finds it.
    socket.retransmits = member::retransmits(sk);
}

/// The current task asks for a connection. A socket that had one before has a new account.
#[inline(always)]
fn began(sk: *const u8) {
    if let Some(place) = place_of(sk) {
        accounts::end(sk, place);
    }
    let Some(process) = Process::current() else { return };
    let family = member::family::<true>(sk);
    match accounts::make::<true>(sk, family, flag::CONNECTS, Some(&process)) {
        Some((_, socket)) => socket.state = state::SYN_SENT,
        None => {
            if let Some(other) = accounts::other(family, TCP) {
                add(&mut other.connects, 1);
            }
        }
    }
}

/// The current task's socket waits for connections.
#[inline(always)]
fn listens(sk: *const u8) {
    let Some(process) = Process::current() else { return };
    let family = member::family::<true>(sk);
    if let Some(place) = place_of(sk) {
        accounts::end(sk, place);
    }
    if let Some((place, socket)) = accounts::make::<true>(sk, family, flag::LISTENS, Some(&process)) {
        socket.state = state::LISTEN;
        accounts::listens(place, socket);
    }
}

/// There is a connection that this side did not ask for, or that both did.
#[inline(always)]
fn accepted(sk: *const u8) {
    if let Some(socket) = owner_of(sk) {
        socket.state = state::ESTABLISHED;
        return established(sk, socket);
    }
    let family = member::family::<true>(sk);
    let Some(listener) = accounts::listener_of::<true>(sk, family) else { return };
    match accounts::make::<true>(sk, family, flag::ACCEPTED | flag::INHERITED, None) {
        Some((_, socket)) => {
            socket.process_start_ns = listener.process_start_ns;
            socket.incarnation = listener.incarnation;
            socket.comm = listener.comm;
            socket.tgid = listener.tgid;
            socket.state = state::ESTABLISHED;
            socket.established_ns = socket.start_ns;
        }
        None => {
            if let Some(other) = accounts::other(family, TCP) {
                add(&mut other.accepts, 1);
            }
        }
    }
}

#[inline(always)]
fn established(sk: *const u8, socket: &mut Socket) {
    socket.established_ns = now();
    socket.copied_seq = member::copied_seq(sk);
    member::addresses(sk, socket);
}

/// Its process closes it: if it has not been used yet, it is known now which one that is.
#[inline(always)]
fn closing(socket: &mut Socket) {
    if socket.flags & flag::INHERITED == 0 || task::is_kernel_thread() {
        return;
    }
    if let Some(process) = Process::current() {
        take_over(socket, &process);
    }
}

#[inline(always)]
fn closed(sk: *const u8, place: u32, socket: &mut Socket) {
    socket.closed_ns = now();
    socket.error = member::error(sk);
    socket.drops = member::drops(sk);
    let srtt_us = member::srtt_us(sk);
    if srtt_us != 0 {
        socket.srtt_us = srtt_us;
    }
    if socket.flags & flag::LISTENS != 0 {
        accounts::listens_no_more(place, socket);
    }
}

/// `tcp_destroy_sock(sk)`. Should its end not have been seen, because it came while the program was telling another's, it
/// is now.
#[inline(always)]
pub fn destroyed(ctx: &RawTracePointContext) {
    let sk: *const u8 = ctx.arg(0);
    let Some(place) = place_of(sk) else { return };
    if let Some(socket) = accounts::at(place)
        && socket.closed_ns == 0
    {
        socket.retransmits = member::retransmits(sk);
        closed(sk, place, socket);
    }
    accounts::end(sk, place);
}

/// `udp_fail_queue_rcv_skb(rc, sk)`: a packet was dropped, and counted.
#[inline(always)]
pub fn dropped(ctx: &RawTracePointContext) {
    let sk: *const u8 = ctx.arg(1);
    if let Some(socket) = owner_of(sk) {
        socket.drops_seen = member::drops(sk);
    }
}

/// `tcp_receive_reset(sk)`.
#[inline(always)]
pub fn reset_in(ctx: &RawTracePointContext) {
    if let Some(socket) = owner_of(ctx.arg(0)) {
        socket.resets_in += 1;
    }
}

/// `tcp_send_reset(sk, skb)`. `sk`: null if there is none.
#[inline(always)]
pub fn reset_out(ctx: &RawTracePointContext) {
    if let Some(socket) = owner_of(ctx.arg(0)) {
        socket.resets_out += 1;
    }
}
