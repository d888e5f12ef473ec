//! Accounts of sockets: found, made, handed over, ended.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, HashMap, PerCpuArray, Queue},
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_ktime_get_ns},
    },
    macros::btf_map,
};
use profiler_common::{
    Comm,
    loss::Loss,
    probe::net::{
        AF_INET, AF_INET6, AF_UNIX, ListenerKey, OTHER_KINDS, OtherSockets, RttBlock, Socket, TCP, UDP,
        UserKey, flag, other_kind,
    },
};

use super::member;
use crate::{
    filter, loss,
    sched::member::{get, pointer, probe, sched_offset},
    task::{self, task_offset},
};

/// `BPF_F_MMAPABLE`: user space reads without a system call for each account.
const MMAPABLE: usize = 1 << 10;

/// Sockets. This and what follows is shrunk to one entry at load if sockets are not looked at.
#[btf_map]
static SOCKETS: Array<Socket, 16384, MMAPABLE> = Array::new();

#[btf_map]
static RTT_BLOCKS: Array<RttBlock, 16384, MMAPABLE> = Array::new();

/// Places that are free. They are handed out in tasks and in interrupts, so no CPU keeps any of its own.
#[btf_map]
static FREE_SOCKETS: Queue<u32, 16384> = Queue::new();

#[btf_map]
static FREE_RTT_BLOCKS: Queue<u32, 16384> = Queue::new();

/// Place of the account of each socket's owner, by the address of the socket.
#[btf_map]
static SOCKET_PLACES: HashMap<u64, u32, 16384> = HashMap::new();

/// Place of the account of each further process that uses a socket.
#[btf_map]
static SOCKET_USERS: HashMap<UserKey, u32, 16384> = HashMap::new();

/// Places of accounts of listening sockets.
#[btf_map]
static LISTENERS: HashMap<ListenerKey, u32, 4096> = HashMap::new();

/// Places of sockets that are gone. Each is in it once at most, so there is always room.
#[btf_map]
static ENDED_SOCKETS: Queue<u32, 16384> = Queue::new();

/// Sums of what has no account.
#[btf_map]
static OTHER_SOCKETS: PerCpuArray<OtherSockets, OTHER_KINDS> = PerCpuArray::new();

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The account at a place.
#[inline(always)]
pub fn at(place: u32) -> Option<&'static mut Socket> {
    if place == 0 {
        return None;
    }
    // SAFETY: valid memory while the program runs; see `profiler_common::probe::net` for who writes what.
    SOCKETS.get_ptr_mut(place).map(|socket| unsafe { &mut *socket })
}

/// The block of a histogram at a place.
#[inline(always)]
pub fn block(place: u32) -> Option<&'static mut RttBlock> {
    // SAFETY: as in `at`; written under the socket's lock alone.
    RTT_BLOCKS.get_ptr_mut(place).map(|block| unsafe { &mut *block })
}

/// Takes a place for a block, which holds zeros. 0: there is none left.
#[inline(always)]
pub fn take_block() -> u32 {
    FREE_RTT_BLOCKS.pop().ok().flatten().unwrap_or(0)
}

/// The place of the account of a socket's owner.
#[inline(always)]
pub fn place_of(sk: *const u8) -> Option<u32> {
    // SAFETY: a number, read whole.
    SOCKET_PLACES.get_ptr(sk as u64).map(|place| unsafe { *place })
}

/// The account of a socket's owner.
#[inline(always)]
pub fn owner_of(sk: *const u8) -> Option<&'static mut Socket> {
    at(place_of(sk)?)
}

/// Whether sockets of that kind are looked at.
#[inline(always)]
pub fn is_of_interest(family: u16) -> bool {
    matches!(family, AF_INET | AF_INET6 | AF_UNIX)
}

/// A process, as accounts name it.
#[derive(Clone, Copy)]
pub struct Process {
    /// Its id.
    pub tgid: u32,
    /// Its first thread; an address to be probed.
    leader: *const u8,
}

impl Process {
    /// That of the current task, if it is looked at.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let config = filter::config();
        let comm =
            if config.comm_len != 0 { bpf_get_current_comm().unwrap_or_default() } else { Comm::default() };
        if !filter::wanted(&config, tgid, &comm) {
            return None;
        }
        // SAFETY: the helper has no precondition.
        let task = unsafe { bpf_get_current_task() } as *const u8;
        Some(Self { tgid, leader: pointer::<false>(task, task_offset!(group_leader)) })
    }

    /// That of a task whose type the verifier knows.
    #[inline(always)]
    pub fn of(task: *const u8) -> Self {
        Self {
            tgid: get::<true, u32>(task, task_offset!(tgid)),
            leader: pointer::<true>(task, task_offset!(group_leader)),
        }
    }

    /// Writes it into an account.
    #[inline(always)]
    pub fn owns(&self, socket: &mut Socket) {
        (socket.process_start_ns, socket.incarnation) = task::start_and_incarnation_of(self.leader);
        let comm = self.leader.wrapping_add(sched_offset!(comm) as usize);
        socket.comm = probe(comm.cast::<Comm>()).unwrap_or_default();
        socket.tgid = self.tgid;
    }
}

/// A place for a new account of a socket; 0: there is none left. The place holds zeros, but for what is filled in here.
#[inline(always)]
fn fill<const TYPED: bool>(sk: *const u8, family: u16, flags: u32) -> Option<(u32, &'static mut Socket)> {
    let place = FREE_SOCKETS.pop().ok().flatten().unwrap_or(0);
    let Some(socket) = at(place) else {
        loss::count(Loss::SocketsFull);
        return None;
    };
    socket.family = family;
    socket.flags = flags;
    socket.start_ns = now();
    socket.net = member::namespace(sk);
    if family != AF_UNIX {
        socket.protocol = member::protocol::<TYPED>(sk);
        member::addresses(sk, socket);
        socket.state = member::state::<TYPED>(sk);
        socket.drops = member::drops(sk);
        if flags & flag::EXISTED != 0 {
            socket.drops_before = socket.drops;
        }
    }
    if socket.protocol == TCP {
        socket.copied_seq = member::copied_seq(sk);
        socket.retransmits = member::retransmits(sk);
        socket.retransmits_before = socket.retransmits;
    }
    Some((place, socket))
}

/// Makes the account of a socket's owner. `process`: none if it is not known yet.
#[inline(always)]
pub fn make<const TYPED: bool>(
    sk: *const u8,
    family: u16,
    flags: u32,
    process: Option<&Process>,
) -> Option<(u32, &'static mut Socket)> {
    let (place, socket) = fill::<TYPED>(sk, family, flags)?;
    if let Some(process) = process {
        process.owns(socket);
    }
    socket.sk = sk as u64;
    if SOCKET_PLACES.insert(sk as u64, place, BPF_NOEXIST as u64).is_err() {
        // Another CPU was faster. There are as many entries as places, so it cannot be full.
        give_back(place, socket);
        let place = place_of(sk)?;
        return at(place).map(|socket| (place, socket));
    }
    Some((place, socket))
}

/// A place that was taken for nothing: user space makes it free again.
#[inline(always)]
fn give_back(place: u32, socket: &mut Socket) {
    socket.sk = 0;
    _ = ENDED_SOCKETS.push(place, 0);
}

/// The account of a process that uses a socket. `owner`: that of the socket's owner.
#[inline(always)]
pub fn of_user<const TYPED: bool>(
    sk: *const u8,
    owner: u32,
    socket: &mut Socket,
    process: &Process,
) -> Option<&'static mut Socket> {
    let key = UserKey { owner, tgid: process.tgid };
    // SAFETY: a number, read whole.
    if let Some(place) = SOCKET_USERS.get_ptr(key).map(|place| unsafe { *place }) {
        return at(place);
    }
    let (place, user) = fill::<TYPED>(sk, socket.family, 0)?;
    process.owns(user);
    user.owner = owner;
    user.sk = sk as u64;
    // What it is of the connection, its owner's account says.
    socket.flags |= flag::SHARED;
    if SOCKET_USERS.insert(key, place, BPF_NOEXIST as u64).is_err() {
        give_back(place, user);
        // SAFETY: as above. None: the map is full.
        let place = SOCKET_USERS.get_ptr(key).map(|place| unsafe { *place });
        if place.is_none() {
            loss::count(Loss::SocketsFull);
        }
        return at(place?);
    }
    Some(user)
}

/// The socket is gone, or will be another one: what its accounts say is final.
#[inline(always)]
pub fn end(sk: *const u8, place: u32) {
    if SOCKET_PLACES.remove(sk as u64).is_ok() {
        _ = ENDED_SOCKETS.push(place, 0);
    }
}

/// A UDP socket of that address whose port is another now: the one that the account is of is gone.
#[inline(always)]
pub fn is_another<const TYPED: bool>(sk: *const u8, socket: &Socket) -> bool {
    socket.protocol == UDP && socket.local_port != 0 && member::bound_port::<TYPED>(sk) != socket.local_port
}

/// The sums of what has no account, of this CPU.
#[inline(always)]
pub fn other(family: u16, protocol: u16) -> Option<&'static mut OtherSockets> {
    // SAFETY: it is this CPU's; programs that interrupt each other there add to it atomically.
    OTHER_SOCKETS.get_ptr_mut(other_kind(family, protocol)).map(|other| unsafe { &mut *other })
}

/// What connections that a listening socket takes have in common.
#[inline(always)]
fn listener_key(socket: &Socket) -> ListenerKey {
    ListenerKey { net: socket.net, port: socket.local_port, family: socket.family, local: socket.local }
}

/// Remembers a listening socket. Of several at one place, the last one.
#[inline(always)]
pub fn listens(place: u32, socket: &Socket) {
    if LISTENERS.insert(listener_key(socket), place, BPF_ANY as u64).is_err() {
        loss::count(Loss::ListenersFull);
    }
}

/// Forgets it.
#[inline(always)]
pub fn listens_no_more(place: u32, socket: &Socket) {
    let key = listener_key(socket);
    // SAFETY: a number, read whole.
    if LISTENERS.get_ptr(key).is_some_and(|of| unsafe { *of } == place) {
        _ = LISTENERS.remove(key);
    }
}

/// The account of the listening socket that took a connection.
#[inline(always)]
pub fn listener_of<const TYPED: bool>(sk: *const u8, family: u16) -> Option<&'static mut Socket> {
    let mut key = ListenerKey {
        net: member::namespace(sk),
        port: member::bound_port::<TYPED>(sk),
        family,
        local: member::local(sk, family),
    };
    let mut found = LISTENERS.get_ptr(key);
    if found.is_none() {
        key.local = [0; 16];
        found = LISTENERS.get_ptr(key);
    }
    // SAFETY: a number, read whole.
    at(unsafe { *found? })
}
