//! Whose sockets are, while packets are recorded that can come and go without their owner.
//!
//! The kernel side knows a socket's owner from its first use on. What happened to a socket before (datagrams that come in
//! until there is no room, and nobody reads) is counted at the socket's address, and gets its owner here, at the end of the
//! window: all sockets are looked at then.

use std::collections::HashMap;

use profiler_common::{
    Comm,
    probe::{net::Socket, socket_packets::NO_SOCKET},
    sample::{CountKey, CountValue, What},
};

use super::SessionError;
use crate::{
    bpf::{load::Kernel, samples::Window},
    probe::net::NetProbe,
};

/// A process that has a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: u32,
    incarnation: u64,
    comm: Comm,
}

/// Owners by the address of the socket; `None`: there were several at that address.
#[derive(Default)]
struct Found(HashMap<u64, Option<Owner>>);

impl Found {
    fn add(&mut self, socket: &Socket) {
        // Further users of a socket are none of its owners.
        if socket.owner != 0 || socket.tgid == 0 {
            return;
        }
        let owner = Owner { pid: socket.tgid, incarnation: socket.incarnation, comm: socket.comm };
        self.merge(socket.sk, Some(owner));
    }

    fn merge(&mut self, sk: u64, owner: Option<Owner>) {
        let known = self.0.entry(sk).or_insert(owner);
        if *known != owner {
            *known = None;
        }
    }

    fn add_all(&mut self, other: &Self) {
        for (&sk, &owner) in &other.0 {
            self.merge(sk, owner);
        }
    }

    /// Charges a count to the owner of its socket. False: it is nobody's who is looked at.
    fn charge(&self, key: &mut CountKey, value: &mut CountValue, all: bool) -> bool {
        if !is_unknown(key) {
            return true;
        }
        match self.0.get(&key.incarnation) {
            Some(Some(owner)) => {
                (key.pid, key.tid, key.incarnation) = (owner.pid, owner.pid, owner.incarnation);
                value.comm = owner.comm;
                true
            }
            _ => {
                key.incarnation = NO_SOCKET;
                all
            }
        }
    }
}

/// Whether it is counted at a socket.
fn is_unknown(key: &CountKey) -> bool {
    What::from_u32(key.what).is_some_and(What::is_of_packets) && key.pid == 0 && key.incarnation != NO_SOCKET
}

/// The sockets.
pub struct Owners {
    probe: NetProbe,
    /// What has no owner is kept: all processes are looked at.
    all: bool,
    /// Of those that were gone at the last time.
    gone: Found,
}

impl Owners {
    /// Looks at those that there are, of the targets; follows them from then on.
    pub fn open(kernel: &mut Kernel, sockets: u32, all: bool) -> Result<Self, SessionError> {
        Ok(Self { probe: NetProbe::open(kernel, sockets, false)?, all, gone: Found::default() })
    }

    /// Looks at those of new targets.
    pub fn look(&mut self, kernel: &mut Kernel) -> Result<(), SessionError> {
        Ok(self.probe.look(kernel)?)
    }

    /// Finds the owners of what is counted at sockets, and lets go of those that are gone.
    pub fn settle(&mut self, kernel: &mut Kernel, window: &mut Window) -> Result<(), SessionError> {
        let is_asked = window.counts.iter().any(|(key, _)| is_unknown(key));
        if is_asked {
            self.probe.look(kernel)?;
        } else {
            self.probe.look_if_due(kernel)?;
        }
        // A socket can have gone when the last window had ended, and before it was settled: what happened to it in between
        // is in this window.
        let mut found = std::mem::take(&mut self.gone);
        self.probe.sockets.take_ended(|account| self.gone.add(&account.socket))?;
        if is_asked {
            found.add_all(&self.gone);
            self.probe.sockets.each(|account| found.add(&account.socket))?;
            window.counts.retain_mut(|(key, value)| found.charge(key, value, self.all));
        }
        Ok(())
    }

    /// Follows them no more.
    pub fn disable(&mut self) {
        self.probe.disable();
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.probe.sockets.memory()
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::stack::EMPTY_STACK;

    use super::*;

    fn counted(pid: u32, incarnation: u64, what: What) -> (CountKey, CountValue) {
        let key = CountKey {
            pid,
            tid: pid,
            incarnation,
            kernel_stack: 1,
            user_stack: EMPTY_STACK,
            what: what as u32,
            detail: 0,
        };
        (key, CountValue { count: 1, ns: 0, first_ns: 0, comm: [0; 16] })
    }

    #[test]
    fn counts_go_to_the_one_owner_that_a_socket_had() {
        let mut found = Found::default();
        let socket = Socket { sk: 100, tgid: 7, incarnation: 9, comm: [b'x'; 16], ..Socket::EMPTY };
        found.add(&socket);
        found.add(&socket);
        found.add(&Socket { tgid: 8, owner: 3, ..socket });
        found.add(&Socket { sk: 200, ..socket });
        found.add(&Socket { sk: 200, tgid: 8, ..socket });
        let charged = |pid, incarnation, what| {
            let (mut key, mut value) = counted(pid, incarnation, what);
            let kept = found.charge(&mut key, &mut value, false);
            (kept, key.pid, key.tid, key.incarnation, value.comm[0])
        };
        assert_eq!(charged(0, 100, What::Dropped), (true, 7, 7, 9, b'x'));
        assert_eq!(charged(0, 200, What::Dropped), (false, 0, 0, NO_SOCKET, 0), "two had it");
        assert_eq!(charged(0, 300, What::SentAgain), (false, 0, 0, NO_SOCKET, 0), "nobody had it");
        assert!(charged(0, NO_SOCKET, What::Dropped).0);
        assert_eq!(charged(0, 100, What::Tick), (true, 0, 0, 100, 0), "the idle task of a CPU");
        assert_eq!(charged(5, 100, What::Dropped), (true, 5, 5, 100, 0));
    }
}
