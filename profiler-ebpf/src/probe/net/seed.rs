//! The sockets that all tasks have open: those that are not known yet get an account, the others are looked at again.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use profiler_common::probe::net::{AF_UNIX, Socket, TCP, flag, state};

use super::{
    accounts::{self, Process},
    member::{self, net_offset},
    take_over,
};
use crate::{
    filter::{self, filter_member},
    sched::member::{get, pointer, sched_offset},
};

/// The number of the look.
#[btf_map]
static NET_LOOK: Array<u32, 1> = Array::new();

/// `S_IFMT` and `S_IFSOCK` (include/uapi/linux/stat.h), `SOCKFS_MAGIC` (include/uapi/linux/magic.h).
const FILE_TYPE: u16 = 0xf000;
/// As above.
const SOCKET: u16 = 0xc000;
/// As above.
const SOCKFS: u64 = 0x534f_434b;

/// An open file of a task, which may be a socket. Both are of types that the verifier knows.
#[inline(always)]
pub fn seed(task: *const u8, file: *const u8) {
    let inode = pointer::<true>(file, sched_offset!(f_inode));
    if get::<true, u16>(inode, sched_offset!(i_mode)) & FILE_TYPE != SOCKET {
        return;
    }
    // A socket that has a name in a file system is another file.
    let file_system = pointer::<true>(inode, sched_offset!(i_sb));
    if get::<true, u64>(file_system, sched_offset!(s_magic)) != SOCKFS {
        return;
    }
    let sk = pointer::<false>(pointer::<true>(file, net_offset!(private_data)), net_offset!(socket_sk));
    if !sk.is_null() {
        look(sk, &Process::of(task));
    }
}

#[inline(always)]
fn is_wanted(process: &Process) -> bool {
    if filter_member!(by_process) != 0 && !filter::is_target(process.tgid) {
        return false;
    }
    // Of a task that is not the current one it is not known.
    filter_member!(cgroup_id) == 0 && filter_member!(comm_len) == 0
}

#[inline(always)]
fn look(sk: *const u8, process: &Process) {
    let family = member::family::<false>(sk);
    if !accounts::is_of_interest(family) {
        return;
    }
    let known = accounts::place_of(sk).and_then(|place| accounts::at(place).map(|socket| (place, socket)));
    let known = match known {
        Some((place, socket)) if accounts::is_another::<false>(sk, socket) => {
            accounts::end(sk, place);
            None
        }
        known => known,
    };
    let known = match known {
        None if is_wanted(process) => accounts::make::<false>(sk, family, flag::EXISTED, Some(process)),
        known => known,
    };
    let Some((place, socket)) = known else { return };
    if socket.flags & flag::INHERITED != 0 && is_wanted(process) {
        take_over(socket, process);
    }
    refresh(sk, place, socket);
}

/// What is told by no event.
#[inline(always)]
fn refresh(sk: *const u8, place: u32, socket: &mut Socket) {
    if let Some(number) = NET_LOOK.get_ptr(0) {
        // SAFETY: a number, read whole; user space writes it between looks.
        socket.seen = unsafe { *number };
    }
    if socket.family == AF_UNIX {
        return;
    }
    socket.drops_seen = member::drops(sk);
    if socket.protocol != TCP || socket.closed_ns != 0 {
        return;
    }
    socket.retransmits_seen = member::retransmits(sk);
    let srtt_us = member::srtt_us(sk);
    if srtt_us != 0 {
        socket.srtt_us = srtt_us;
    }
    if socket.flags & flag::EXISTED != 0 && member::state::<false>(sk) == state::LISTEN {
        socket.flags |= flag::LISTENS;
        accounts::listens(place, socket);
    }
}
