//! The sum of accounts of sockets: added to, subtracted, made a row.

use std::collections::BTreeMap;

use profiler_common::{
    Comm,
    probe::net::{AF_UNIX, OtherSockets, Socket, TCP, flag, state},
};

use super::{
    super::histogram::{merge, more, percentile},
    key::{Key, Of, Protocol},
    names::Names,
};
use crate::{
    bpf::sockets::SocketAccount,
    host::syscalls,
    model::{
        name::{clean, clean_c},
        net::Row,
    },
};

/// What a sum says. Times are ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    comm: Comm,
    /// When the account was made that the name is from: a process that executes a program has another one then.
    named_ns: u64,
    netns: Option<u32>,
    several_netns: bool,
    state: Option<u32>,
    open: u64,
    tx_bytes: u64,
    rx_bytes: u64,
    tx_calls: u64,
    rx_calls: u64,
    tx_errors: u64,
    rx_errors: u64,
    connects: u64,
    accepts: u64,
    /// Connections that came about, the time that this took, and the longest.
    connected: (u64, u64, u64),
    /// Connections that ended and whose beginning is known, and the time that they were there.
    ended: (u64, u64),
    /// The same of those that go on.
    going_on: (u64, u64),
    retransmits: u64,
    resets_in: u64,
    resets_out: u64,
    drops: u64,
    rtt_us: u32,
    min_rtt_us: u32,
    /// By error number, ascending.
    failures: Vec<(u32, u64)>,
    /// The same.
    broken: Vec<(u32, u64)>,
    /// By bucket, ascending.
    rtt: Vec<(u16, u64)>,
}

impl Sum {
    /// Adds an account. `now_ns`: connections go on until then.
    pub fn add_account(&mut self, account: &SocketAccount, now_ns: u64) {
        let socket = &account.socket;
        if self.named_ns <= socket.start_ns {
            (self.comm, self.named_ns) = (socket.comm, socket.start_ns);
        }
        if self.netns.is_some_and(|netns| netns != socket.net) {
            self.several_netns = true;
        }
        self.netns = Some(socket.net);
        self.tx_bytes += socket.tx_bytes;
        // What was taken out by calls is in both, what was spliced only in the second.
        self.rx_bytes += socket.rx_bytes.max(socket.copied_bytes);
        self.tx_calls += socket.tx_calls;
        self.rx_calls += socket.rx_calls;
        self.tx_errors += socket.tx_errors;
        self.rx_errors += socket.rx_errors;
        if socket.owner != 0 {
            return;
        }
        let is_open = !account.ended && socket.closed_ns == 0;
        self.open += u64::from(is_open);
        self.drops += u64::from(socket.drops.max(socket.drops_seen).wrapping_sub(socket.drops_before));
        if socket.protocol == TCP && socket.family != AF_UNIX {
            self.add_connection(socket, now_ns);
            merge(&mut self.rtt, account.rtt.iter().map(|&(bucket, n)| (bucket, n.into())));
        }
    }

    fn add_connection(&mut self, socket: &Socket, now_ns: u64) {
        let is = |bit| socket.flags & bit != 0;
        self.state = Some(if socket.closed_ns != 0 { state::CLOSE } else { socket.state });
        self.connects += u64::from(is(flag::CONNECTS));
        self.accepts += u64::from(is(flag::ACCEPTED));
        if is(flag::CONNECTS) && socket.established_ns != 0 {
            let ns = socket.established_ns.saturating_sub(socket.start_ns);
            let (number, sum, max) = self.connected;
            self.connected = (number + 1, sum + ns, max.max(ns));
        }
        if socket.closed_ns != 0 {
            if socket.established_ns == 0 && is(flag::CONNECTS) {
                merge(&mut self.failures, [(socket.error, 1)]);
            } else if socket.error != 0 && !is(flag::LISTENS) {
                merge(&mut self.broken, [(socket.error, 1)]);
            }
        }
        if socket.established_ns != 0 {
            let (lifetimes, end_ns) = match socket.closed_ns {
                0 => (&mut self.going_on, now_ns),
                closed_ns => (&mut self.ended, closed_ns),
            };
            lifetimes.0 += 1;
            lifetimes.1 += end_ns.saturating_sub(socket.established_ns);
        }
        let retransmits = socket.retransmits.max(socket.retransmits_seen);
        self.retransmits += u64::from(retransmits.wrapping_sub(socket.retransmits_before));
        self.resets_in += u64::from(socket.resets_in);
        self.resets_out += u64::from(socket.resets_out);
        if socket.srtt_us != 0 {
            self.rtt_us = socket.srtt_us;
            let least = if socket.min_rtt_us == 0 { socket.srtt_us } else { socket.min_rtt_us };
            self.min_rtt_us = if self.min_rtt_us == 0 { least } else { self.min_rtt_us.min(least) };
        }
    }

    /// Adds what has no account.
    pub fn add_other(&mut self, other: &OtherSockets) {
        self.tx_bytes += other.tx_bytes;
        self.rx_bytes += other.rx_bytes;
        self.tx_calls += other.tx_calls;
        self.rx_calls += other.rx_calls;
        self.tx_errors += other.tx_errors;
        self.rx_errors += other.rx_errors;
        self.connects += other.connects;
        self.accepts += other.accepts;
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        if self.named_ns <= other.named_ns {
            (self.comm, self.named_ns) = (other.comm, other.named_ns);
        }
        if other.several_netns || self.netns.is_some_and(|netns| other.netns.is_some_and(|o| o != netns)) {
            self.several_netns = true;
        }
        self.netns = self.netns.or(other.netns);
        self.state = self.state.or(other.state);
        self.open += other.open;
        self.tx_bytes += other.tx_bytes;
        self.rx_bytes += other.rx_bytes;
        self.tx_calls += other.tx_calls;
        self.rx_calls += other.rx_calls;
        self.tx_errors += other.tx_errors;
        self.rx_errors += other.rx_errors;
        self.connects += other.connects;
        self.accepts += other.accepts;
        self.connected.0 += other.connected.0;
        self.connected.1 += other.connected.1;
        self.connected.2 = self.connected.2.max(other.connected.2);
        self.ended.0 += other.ended.0;
        self.ended.1 += other.ended.1;
        self.going_on.0 += other.going_on.0;
        self.going_on.1 += other.going_on.1;
        self.retransmits += other.retransmits;
        self.resets_in += other.resets_in;
        self.resets_out += other.resets_out;
        self.drops += other.drops;
        if self.rtt_us == 0 {
            self.rtt_us = other.rtt_us;
        }
        if self.min_rtt_us == 0 || (other.min_rtt_us != 0 && other.min_rtt_us < self.min_rtt_us) {
            self.min_rtt_us = other.min_rtt_us;
        }
        merge(&mut self.failures, other.failures.iter().copied());
        merge(&mut self.broken, other.broken.iter().copied());
        merge(&mut self.rtt, other.rtt.iter().copied());
    }

    /// What was added since an earlier sum of the same. What is not a sum (state, round-trip time, the longest time to
    /// connect) is that of now.
    pub fn since(&self, earlier: &Self) -> Self {
        let less = u64::saturating_sub;
        Self {
            comm: self.comm,
            named_ns: self.named_ns,
            netns: self.netns,
            several_netns: self.several_netns,
            state: self.state,
            open: self.open,
            tx_bytes: less(self.tx_bytes, earlier.tx_bytes),
            rx_bytes: less(self.rx_bytes, earlier.rx_bytes),
            tx_calls: less(self.tx_calls, earlier.tx_calls),
            rx_calls: less(self.rx_calls, earlier.rx_calls),
            tx_errors: less(self.tx_errors, earlier.tx_errors),
            rx_errors: less(self.rx_errors, earlier.rx_errors),
            connects: less(self.connects, earlier.connects),
            accepts: less(self.accepts, earlier.accepts),
            connected: (
                less(self.connected.0, earlier.connected.0),
                less(self.connected.1, earlier.connected.1),
                self.connected.2,
            ),
            ended: (less(self.ended.0, earlier.ended.0), less(self.ended.1, earlier.ended.1)),
            going_on: self.going_on,
            retransmits: less(self.retransmits, earlier.retransmits),
            resets_in: less(self.resets_in, earlier.resets_in),
            resets_out: less(self.resets_out, earlier.resets_out),
            drops: less(self.drops, earlier.drops),
            rtt_us: self.rtt_us,
            min_rtt_us: self.min_rtt_us,
            failures: more(&self.failures, &earlier.failures),
            broken: more(&self.broken, &earlier.broken),
            rtt: more(&self.rtt, &earlier.rtt),
        }
    }

    /// Whether there is anything to show.
    pub fn is_something(&self) -> bool {
        let events = [
            self.tx_calls,
            self.rx_calls,
            self.rx_bytes,
            self.connects,
            self.accepts,
            self.open,
            self.retransmits,
            self.resets_in,
            self.resets_out,
            self.drops,
        ];
        events.iter().any(|&n| n != 0) || !self.failures.is_empty() || !self.broken.is_empty()
    }

    /// The row. `duration_ns`: of the span.
    pub fn row(&self, (of, protocol): &Key, duration_ns: u64, names: &Names) -> Row {
        let rate = |bytes: u64| {
            let a_second = u128::from(bytes) * 1_000_000_000 / u128::from(duration_ns.max(1));
            u64::try_from(a_second).unwrap_or(u64::MAX)
        };
        let by_error = |errors: &[(u32, u64)]| -> BTreeMap<String, u64> {
            let name = |errno| if errno == 0 { "closed".to_owned() } else { syscalls::error(errno) };
            errors.iter().map(|&(errno, n)| (name(errno), n)).collect()
        };
        let us = |us: u32| (us != 0).then_some(u64::from(us) * 1_000);
        let mean = |sum: u64, number: u64| sum.checked_div(number);
        let percent = |percent| {
            let us = percentile(&self.rtt, percent)?;
            // The middle of a bucket can lie below all that is in it.
            Some(us.max(self.min_rtt_us.into()) * 1_000)
        };
        let row = Row {
            protocol: protocol.name(),
            netns: self.netns.filter(|_| !self.several_netns),
            open: self.open,
            tx_bytes: self.tx_bytes,
            rx_bytes: self.rx_bytes,
            tx_bytes_per_second: rate(self.tx_bytes),
            rx_bytes_per_second: rate(self.rx_bytes),
            tx_calls: self.tx_calls,
            rx_calls: self.rx_calls,
            tx_errors: self.tx_errors,
            rx_errors: self.rx_errors,
            connects: self.connects,
            accepts: self.accepts,
            failed: self.failures.iter().map(|&(_, n)| n).sum(),
            failures: by_error(&self.failures),
            broken: by_error(&self.broken),
            connect_ns: mean(self.connected.1, self.connected.0),
            connect_max_ns: (self.connected.0 != 0).then_some(self.connected.2),
            lifetime_ns: mean(self.ended.1 + self.going_on.1, self.ended.0 + self.going_on.0),
            rtt_ns: us(self.rtt_us),
            rtt_min_ns: us(self.min_rtt_us),
            rtt_p50_ns: percent(50),
            rtt_p99_ns: percent(99),
            retransmits: self.retransmits,
            resets_in: self.resets_in,
            resets_out: self.resets_out,
            drops: self.drops,
            ..Row::default()
        };
        self.with_names(row, of, *protocol, names)
    }

    fn with_names(&self, row: Row, of: &Of, protocol: Protocol, names: &Names) -> Row {
        let all = || clean(b"[all]");
        match of {
            Of::Process(process) | Of::Connection(process, ..) => {
                let row = Row {
                    pid: Some(process.0).filter(|&pid| pid != 0),
                    comm: if process.0 == 0 { clean(b"[unknown]") } else { clean_c(&self.comm) },
                    container: names.container(*process).map(|name| name.to_string()),
                    ..row
                };
                let Of::Connection(_, local, remote, _) = of else { return row };
                let ends = protocol != Protocol::Unix;
                Row {
                    local: ends.then(|| local.to_string()),
                    remote: (ends && remote.port() != 0).then(|| remote.to_string()),
                    remote_name: names.host(remote.ip()),
                    state: self.state.map(state_name),
                    ..row
                }
            }
            Of::Remote(address) => Row {
                comm: all(),
                remote: address.map(|address| address.to_string()),
                remote_name: address.and_then(|address| names.host(address)),
                ..row
            },
            Of::Port(port) => Row {
                comm: all(),
                port: Some(*port).filter(|&port| port != 0),
                service: names.service(*port, &row.protocol),
                ..row
            },
            Of::Container(name) => {
                Row { comm: all(), container: name.as_ref().map(|name| name.to_string()), ..row }
            }
            Of::Ended => Row { comm: clean(b"[ended]"), ..row },
            Of::Other => Row { comm: clean(b"[other]"), ..row },
        }
    }
}

/// The name of a TCP state (include/net/tcp_states.h).
pub const fn state_name(state: u32) -> &'static str {
    const NAMES: [&str; 13] = [
        "unknown",
        "ESTABLISHED",
        "SYN_SENT",
        "SYN_RECV",
        "FIN_WAIT1",
        "FIN_WAIT2",
        "TIME_WAIT",
        "CLOSED",
        "CLOSE_WAIT",
        "LAST_ACK",
        "LISTEN",
        "CLOSING",
        "NEW_SYN_RECV",
    ];
    let at = state as usize;
    if at < NAMES.len() { NAMES[at] } else { NAMES[0] }
}
