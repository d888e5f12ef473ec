//! Accounts of sockets summed up to what rows are about, subtracted from each other, and made rows.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use profiler_common::{
    Comm,
    probe::net::{AF_INET6, AF_UNIX, OTHER_KINDS, OtherSockets, Socket, TCP, UDP, flag, state},
};

use super::{
    super::histogram::{merge, more, percentile},
    names::Names,
};
use crate::{
    bpf::sockets::SocketAccount,
    host::syscalls,
    model::{
        name::{clean, clean_c},
        net::{By, Row},
    },
};

/// Sums that are kept apart, some 400 bytes each; sockets that are gone beyond it are summed up by protocol.
const MAX_KEPT: usize = 65_536;

/// Whose sockets: the id of the process and when it was made.
type Process = (u32, u64);

/// What a sum is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Of {
    /// The process.
    Process(Process),
    /// A process, and the two ends.
    Connection(Process, SocketAddr, SocketAddr, u32),
    /// The remote address; `None`: there is none.
    Remote(Option<IpAddr>),
    /// The port of the side that listens.
    Port(u16),
    /// The control group; `None`: not known.
    Container(Option<Rc<str>>),
    /// Of sockets that are gone and not kept apart.
    Ended,
    /// Sockets without account.
    Other,
}

/// What a sum is of: the second is the protocol.
type Key = (Of, Protocol);

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Sockets of this host's processes among each other.
    Unix,
    /// Another one, by number; `u16::MAX`: several.
    Other(u16),
}

impl Protocol {
    const fn of(socket: &Socket) -> Self {
        match (socket.family, socket.protocol) {
            (AF_UNIX, _) => Self::Unix,
            (_, TCP) => Self::Tcp,
            (_, UDP) => Self::Udp,
            (_, number) => Self::Other(number),
        }
    }

    /// By the index of a kind (`profiler_common::probe::net::other_kind`).
    const KINDS: [Self; OTHER_KINDS] = [Self::Tcp, Self::Udp, Self::Unix, Self::Other(u16::MAX)];

    fn name(self) -> String {
        match self {
            Self::Tcp => "tcp".to_owned(),
            Self::Udp => "udp".to_owned(),
            Self::Unix => "unix".to_owned(),
            Self::Other(u16::MAX) => "other".to_owned(),
            Self::Other(number) => number.to_string(),
        }
    }
}

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
    fn add_account(&mut self, account: &SocketAccount, now_ns: u64) {
        let socket = &account.socket;
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

    fn add(&mut self, other: &Self) {
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
    fn since(&self, earlier: &Self) -> Self {
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
    fn is_something(&self) -> bool {
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

    fn row(&self, (of, protocol): &Key, duration_ns: u64, names: &Names) -> Row {
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

/// An address; IPv4 in IPv6 is shown as what it is.
fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d).into()
}

/// Sums by what they are of.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    by: By,
    sums: HashMap<Key, Sum>,
    /// Most sums that are kept apart; `None`: all.
    limit: Option<usize>,
    merged: u64,
}

impl Totals {
    /// None yet. `bounded`: of sockets that are gone, of which there can be any number.
    pub fn new(by: By, bounded: bool) -> Self {
        Self { by, sums: HashMap::new(), limit: bounded.then_some(MAX_KEPT), merged: 0 }
    }

    fn key(&self, socket: &Socket, names: &mut Names) -> Key {
        let process = (socket.tgid, socket.process_start_ns);
        let container = names.look_up(process);
        let local = SocketAddr::new(address(socket.family, socket.local), socket.local_port);
        let remote = SocketAddr::new(address(socket.family, socket.remote), socket.remote_port);
        let has_remote = socket.remote_port != 0;
        let of = match self.by {
            By::Process => Of::Process(process),
            By::Connection => Of::Connection(process, local, remote, socket.net),
            By::Remote => Of::Remote(has_remote.then_some(remote.ip())),
            By::Port => Of::Port(service_port(socket, names)),
            By::Container => Of::Container(container),
        };
        (of, Protocol::of(socket))
    }

    /// The sum of that key, or the one that stands for all that there is no room for.
    fn sum(&mut self, key: Key) -> &mut Sum {
        let is_full = self.limit.is_some_and(|limit| self.sums.len() >= limit);
        if is_full && !self.sums.contains_key(&key) {
            self.merged += 1;
            return self.sums.entry((Of::Ended, key.1)).or_default();
        }
        self.sums.entry(key).or_default()
    }

    /// Adds an account. `now_ns`: connections go on until then.
    pub fn add(&mut self, account: &SocketAccount, now_ns: u64, names: &mut Names) {
        let key = self.key(&account.socket, names);
        let sum = self.sum(key);
        if sum.named_ns <= account.socket.start_ns {
            (sum.comm, sum.named_ns) = (account.socket.comm, account.socket.start_ns);
        }
        sum.add_account(account, now_ns);
    }

    /// Adds what has no account.
    pub fn add_other(&mut self, others: &[OtherSockets; OTHER_KINDS]) {
        for (protocol, other) in Protocol::KINDS.into_iter().zip(others) {
            if *other == OtherSockets::default() {
                continue;
            }
            let sum = self.sum((Of::Other, protocol));
            sum.tx_bytes += other.tx_bytes;
            sum.rx_bytes += other.rx_bytes;
            sum.tx_calls += other.tx_calls;
            sum.rx_calls += other.rx_calls;
            sum.tx_errors += other.tx_errors;
            sum.rx_errors += other.rx_errors;
            sum.connects += other.connects;
            sum.accepts += other.accepts;
        }
    }

    /// Adds other sums.
    pub fn add_all(&mut self, others: &Self) {
        for (key, sum) in &others.sums {
            let into = self.sums.entry(key.clone()).or_default();
            into.add(sum);
        }
    }

    /// Rows of what is there.
    pub fn rows(&self, duration_ns: u64, names: &Names) -> Vec<Row> {
        let sums = self.sums.iter().filter(|(_, sum)| sum.is_something());
        sums.map(|(key, sum)| sum.row(key, duration_ns, names)).collect()
    }

    /// Rows of what was added since earlier sums.
    pub fn rows_since(&self, earlier: &Self, duration_ns: u64, names: &Names) -> Vec<Row> {
        let none = Sum::default();
        let added =
            self.sums.iter().map(|(key, sum)| (key, sum.since(earlier.sums.get(key).unwrap_or(&none))));
        let added = added.filter(|(_, sum)| sum.is_something());
        added.map(|(key, sum)| sum.row(key, duration_ns, names)).collect()
    }

    /// Sums of sockets that are gone that are not kept apart.
    pub const fn merged(&self) -> u64 {
        self.merged
    }
}

/// The port that a connection is known by: that of the side that listens. Where it is not known which side asked, the one
/// with a name, or the lower one.
fn service_port(socket: &Socket, names: &Names) -> u16 {
    let (local, remote) = (socket.local_port, socket.remote_port);
    if socket.flags & flag::CONNECTS != 0 {
        return remote;
    }
    if remote == 0 || socket.flags & (flag::ACCEPTED | flag::LISTENS) != 0 {
        return local;
    }
    match (names.is_service(local), names.is_service(remote)) {
        (true, false) => local,
        (false, true) => remote,
        _ => local.min(remote),
    }
}

#[cfg(test)]
mod tests;
