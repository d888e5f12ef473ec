//! The maps of the accounts of sockets (`profiler_common::probe::net`): a slab that is read through `mmap`, queues of free
//! places, sockets that are gone, further users of a socket, and sums of what has no account.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHashMap, IterableMap as _, MapData, MapError, PerCpuArray, Queue},
};
use profiler_common::{
    hist::BUCKETS,
    loss::Loss,
    probe::net::{OTHER_KINDS, OtherSockets, RttBlock, Socket, TCP, UserKey, flag, state},
};

use super::{
    BpfError, batch,
    map::{failed, is_gone, take},
    slab::SlabMaps,
    stats::{Counters, map_memory},
};

const PLACES: &str = "SOCKET_PLACES";
const USERS: &str = "SOCKET_USERS";
const ENDED: &str = "ENDED_SOCKETS";
const OTHERS: &str = "OTHER_SOCKETS";
const LOOK: &str = "NET_LOOK";

/// What is known of a socket of a process.
pub struct SocketAccount {
    /// The account.
    pub socket: Socket,
    /// Round-trip times: index of the bucket (`block * BUCKETS + bucket`), how many. Ascending, without the empty ones.
    pub rtt: Vec<(u16, u32)>,
    /// The socket is gone, or what was to be counted of it is complete.
    pub ended: bool,
}

/// The maps.
pub struct Sockets {
    sockets: SlabMaps<Socket, u32>,
    blocks: SlabMaps<RttBlock, u32>,
    places: BpfHashMap<MapData, u64, u32>,
    users: BpfHashMap<MapData, UserKey, u32>,
    ended: Queue<MapData, u32>,
    others: PerCpuArray<MapData, OtherSockets>,
    look: Array<MapData, u32>,
    losses: Counters,
    /// Gone, but a program that found them before could still be writing.
    leaving: Vec<u32>,
}

impl Sockets {
    /// Takes the maps out of the object, which was loaded with room for so many sockets.
    pub fn new(ebpf: &mut Ebpf, sockets: u32) -> Result<Self, BpfError> {
        Ok(Self {
            sockets: SlabMaps::new(ebpf, ("SOCKETS", "FREE_SOCKETS"), sockets, 1..sockets)?,
            blocks: SlabMaps::new(ebpf, ("RTT_BLOCKS", "FREE_RTT_BLOCKS"), sockets, 1..sockets)?,
            places: take(ebpf, PLACES)?,
            users: take(ebpf, USERS)?,
            ended: take(ebpf, ENDED)?,
            others: take(ebpf, OTHERS)?,
            look: take(ebpf, LOOK)?,
            losses: Counters::new(ebpf, "LOSSES")?,
            leaving: Vec::new(),
        })
    }

    /// Says which look at all sockets is about to begin.
    pub fn begin_look(&mut self, number: u32) -> Result<(), BpfError> {
        self.look.set(0, number, 0).map_err(failed("write", LOOK))
    }

    /// Ends the accounts of sockets of which no event tells that they are gone, and which that look did not see, though
    /// they were there when it began (`CLOCK_MONOTONIC`, ns).
    pub fn sweep(&mut self, number: u32, begun_ns: u64) -> Result<(), BpfError> {
        for (sk, place) in self.live()? {
            let Some(socket) = self.sockets.get(place) else { continue };
            // A connection that goes on need not be a file's any more.
            let goes_on = socket.protocol == TCP && socket.state != state::CLOSE;
            if goes_on || socket.seen == number || socket.start_ns.max(socket.closed_ns) >= begun_ns {
                continue;
            }
            match self.places.remove(&sk) {
                Ok(()) => self.leaving.push(place),
                // The kernel side was faster.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed("remove a socket from", PLACES)(error)),
            }
        }
        Ok(())
    }

    /// Gives the accounts of each socket that was gone at the last time, and makes room of them.
    pub fn take_ended(&mut self, mut each: impl FnMut(&SocketAccount)) -> Result<(), BpfError> {
        let leaving = std::mem::take(&mut self.leaving);
        self.look_for_ended()?;
        let shared: HashSet<u32> = leaving.iter().copied().filter(|&place| self.is_shared(place)).collect();
        if !shared.is_empty() {
            // First, so that nobody who has the place next is taken for one of them.
            for (key, place) in self.users()?.into_iter().filter(|(key, _)| shared.contains(&key.owner)) {
                self.users.remove(&key).map_err(failed("remove a user from", USERS))?;
                self.finish(place, &mut each)?;
            }
        }
        leaving.into_iter().try_for_each(|place| self.finish(place, &mut each))
    }

    /// Adds those that the kernel side says are gone.
    fn look_for_ended(&mut self) -> Result<(), BpfError> {
        loop {
            match self.ended.pop(0) {
                Ok(place) => self.leaving.push(place),
                Err(MapError::ElementNotFound) => return Ok(()),
                Err(error) => return Err(failed("read", ENDED)(error)),
            }
        }
    }

    fn is_shared(&self, place: u32) -> bool {
        self.sockets.get(place).is_some_and(|socket| socket.flags & flag::SHARED != 0)
    }

    fn finish(&mut self, place: u32, each: &mut impl FnMut(&SocketAccount)) -> Result<(), BpfError> {
        let Some(socket) = self.sockets.get(place) else { return Ok(()) };
        // Zero: taken for a socket that another CPU was faster with.
        if socket.sk != 0 {
            each(&self.account(&socket, true));
        }
        for block in socket.rtt_blocks.into_iter().filter(|&block| block != 0) {
            self.blocks.set(block, [0; _]);
            self.blocks.give_back(block)?;
        }
        self.sockets.set(place, Socket::EMPTY);
        self.sockets.give_back(place)
    }

    /// Gives each account that has not been taken, as it is.
    pub fn each(&mut self, mut each: impl FnMut(&SocketAccount)) -> Result<(), BpfError> {
        // In this order, so that one that goes meanwhile is in one of them at least.
        let mut places: HashMap<u32, bool> =
            self.live()?.into_iter().map(|(_, place)| (place, false)).collect();
        self.look_for_ended()?;
        places.extend(self.leaving.iter().map(|&place| (place, true)));
        let users = self.users()?;
        let of_users =
            users.iter().map(|(key, place)| (*place, places.get(&key.owner).copied().unwrap_or(true)));
        let of_users: Vec<_> = of_users.collect();
        for (place, ended) in places.into_iter().chain(of_users) {
            if let Some(socket) = self.sockets.get(place)
                && socket.sk != 0
            {
                each(&self.account(&socket, ended));
            }
        }
        Ok(())
    }

    fn live(&self) -> Result<Vec<(u64, u32)>, BpfError> {
        let mut live = Vec::new();
        batch::read(self.places.map().fd().as_fd(), PLACES, |&sk: &u64, &place: &u32| {
            live.push((sk, place))
        })?;
        Ok(live)
    }

    fn users(&self) -> Result<Vec<(UserKey, u32)>, BpfError> {
        let mut users = Vec::new();
        batch::read(self.users.map().fd().as_fd(), USERS, |&key: &UserKey, &place: &u32| {
            users.push((key, place));
        })?;
        Ok(users)
    }

    fn account(&self, socket: &Socket, ended: bool) -> SocketAccount {
        let mut rtt = Vec::new();
        for (number, place) in (0..).zip(socket.rtt_blocks) {
            let Some(block) = self.blocks.get(place) else { continue };
            let filled = (number * BUCKETS..).zip(block).filter(|&(_, n)| n != 0);
            rtt.extend(filled.map(|(index, n)| (index as u16, n)));
        }
        SocketAccount { socket: *socket, rtt, ended }
    }

    /// Sums of what has no account, by kind (`profiler_common::probe::net::other_kind`).
    pub fn others(&self) -> Result<[OtherSockets; OTHER_KINDS], BpfError> {
        let mut sums = [OtherSockets::default(); OTHER_KINDS];
        for (kind, sum) in (0..).zip(&mut sums) {
            for cpu in self.others.get(&kind, 0).map_err(failed("read", OTHERS))?.iter() {
                sum.tx_bytes += cpu.tx_bytes;
                sum.rx_bytes += cpu.rx_bytes;
                sum.tx_calls += cpu.tx_calls;
                sum.rx_calls += cpu.rx_calls;
                sum.tx_errors += cpu.tx_errors;
                sum.rx_errors += cpu.rx_errors;
                sum.connects += cpu.connects;
                sum.accepts += cpu.accepts;
            }
        }
        Ok(sums)
    }

    /// Counts of what was lost.
    pub fn losses(&self) -> Result<Vec<(Loss, u64)>, BpfError> {
        Loss::NET.iter().map(|&loss| Ok((loss, self.losses.sum(loss as u32)?))).collect()
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        let of = |fd: BorrowedFd<'_>| map_memory(fd);
        self.sockets.memory()
            + self.blocks.memory()
            + of(self.places.map().fd().as_fd())
            + of(self.users.map().fd().as_fd())
            + of(self.others.map().fd().as_fd())
    }
}
