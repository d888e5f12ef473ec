//! The `net` probe: accounts of sockets, by socket and process.
//!
//! Accounts are in a slab, an array whose places are handed out by a queue; place 0 is nobody's. A socket has one account,
//! of the process that owns it, and one more for each other process that uses it. Several CPUs write to an account at the
//! same time: sums are added to atomically. What tells of a TCP connection itself is written under the socket's lock.

use crate::Comm;

/// Powers of two of microseconds in a histogram of round-trip times: up to 2^29, nine minutes ([`crate::hist`]).
pub const RTT_BLOCKS: usize = 26;

/// A block of such a histogram.
pub type RttBlock = [u32; crate::hist::BUCKETS];

/// `AF_UNIX`, `AF_INET`, `AF_INET6` (include/linux/socket.h).
pub const AF_UNIX: u16 = 1;
/// As above.
pub const AF_INET: u16 = 2;
/// As above.
pub const AF_INET6: u16 = 10;

/// `IPPROTO_TCP`, `IPPROTO_UDP` (include/uapi/linux/in.h).
pub const TCP: u16 = 6;
/// As above.
pub const UDP: u16 = 17;

/// States of a TCP socket (include/net/tcp_states.h).
pub mod state {
    /// Connected.
    pub const ESTABLISHED: u32 = 1;
    /// Connecting.
    pub const SYN_SENT: u32 = 2;
    /// Closed by this side first.
    pub const FIN_WAIT1: u32 = 4;
    /// No connection.
    pub const CLOSE: u32 = 7;
    /// Closed by this side, after the other.
    pub const LAST_ACK: u32 = 9;
    /// Waits for connections.
    pub const LISTEN: u32 = 10;
}

/// Bits of [`Socket::flags`].
pub mod flag {
    /// It was there before it was looked at: what happened before is not in its sums.
    pub const EXISTED: u32 = 1;
    /// Its process asked for the connection.
    pub const CONNECTS: u32 = 2;
    /// A connection that a listening socket of this host took.
    pub const ACCEPTED: u32 = 4;
    /// It has only been taken by the listening socket so far, whose process it is charged to.
    pub const INHERITED: u32 = 8;
    /// It waits for connections.
    pub const LISTENS: u32 = 16;
    /// Other processes use it too: they have accounts in the map of users.
    pub const SHARED: u32 = 32;
}

/// The account of a socket, or of one more process that uses it. Times are ns of `CLOCK_MONOTONIC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Address of the `struct sock`; 0: the place is free.
    pub sk: u64,
    /// When the account was made, which is when a connection was begun.
    pub start_ns: u64,
    /// When the connection was there; 0: never, or before.
    pub established_ns: u64,
    /// When it was closed; 0: it is not.
    pub closed_ns: u64,
    /// When its process was made, ns since boot: tells processes apart that had the same id.
    pub process_start_ns: u64,
    /// `CountKey::incarnation` of its process.
    pub incarnation: u64,
    /// Bytes that the process sent.
    pub tx_bytes: u64,
    /// Bytes that it received by calls.
    pub rx_bytes: u64,
    /// TCP: bytes that it took out of the receive queue, by calls or by `splice`.
    pub copied_bytes: u64,
    /// Calls that sent.
    pub tx_calls: u64,
    /// Calls that received.
    pub rx_calls: u64,
    /// Calls to send that failed, except those that would have had to wait.
    pub tx_errors: u64,
    /// The same of calls to receive.
    pub rx_errors: u64,
    /// Process id; 0: not known.
    pub tgid: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Name of the process.
    pub comm: Comm,
    /// Inode number of the network namespace.
    pub net: u32,
    /// `AF_INET`, `AF_INET6` or `AF_UNIX`.
    pub family: u16,
    /// `IPPROTO_TCP`, `IPPROTO_UDP` or another; 0 for unix.
    pub protocol: u16,
    /// Local address, as in a packet; IPv4 in the first 4 bytes.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote port; 0: none.
    pub remote_port: u16,
    /// TCP state.
    pub state: u32,
    /// The error that ended it (`sk_err`); 0: none.
    pub error: u32,
    /// Segments sent again (`total_retrans`) at the last change of the state.
    pub retransmits: u32,
    /// The same at the last look at all sockets.
    pub retransmits_seen: u32,
    /// The same when the account was made.
    pub retransmits_before: u32,
    /// Resets sent.
    pub resets_out: u32,
    /// Resets received.
    pub resets_in: u32,
    /// Packets that the socket dropped (`sk_drops`) when the connection ended.
    pub drops: u32,
    /// The same at the last look at all sockets.
    pub drops_seen: u32,
    /// The same when the account was made.
    pub drops_before: u32,
    /// Smoothed round-trip time, us, the last that was seen; 0: none.
    pub srtt_us: u32,
    /// The least of these; 0: none.
    pub min_rtt_us: u32,
    /// TCP: sequence number up to which data was taken out of the receive queue.
    pub copied_seq: u32,
    /// Number of the last look at all sockets at which it was there.
    pub seen: u32,
    /// The place of the account of the socket's owner; 0: this is it.
    pub owner: u32,
    /// Places of the blocks of the histogram of round-trip times; 0: nothing in it.
    pub rtt_blocks: [u32; RTT_BLOCKS],
}

const _: () = assert!(
    size_of::<Socket>() == 13 * 8 + 2 * 4 + crate::COMM_LEN + 4 + 4 * 2 + 32 + 15 * 4 + 4 * RTT_BLOCKS
);

impl Socket {
    /// A free place.
    pub const EMPTY: Self = Self {
        sk: 0,
        start_ns: 0,
        established_ns: 0,
        closed_ns: 0,
        process_start_ns: 0,
        incarnation: 0,
        tx_bytes: 0,
        rx_bytes: 0,
        copied_bytes: 0,
        tx_calls: 0,
        rx_calls: 0,
        tx_errors: 0,
        rx_errors: 0,
        tgid: 0,
        flags: 0,
        comm: [0; crate::COMM_LEN],
        net: 0,
        family: 0,
        protocol: 0,
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        state: 0,
        error: 0,
        retransmits: 0,
        retransmits_seen: 0,
        retransmits_before: 0,
        resets_out: 0,
        resets_in: 0,
        drops: 0,
        drops_seen: 0,
        drops_before: 0,
        srtt_us: 0,
        min_rtt_us: 0,
        copied_seq: 0,
        seen: 0,
        owner: 0,
        rtt_blocks: [0; RTT_BLOCKS],
    };
}

/// Key of the account of a process that uses another one's socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserKey {
    /// The place of the owner's account.
    pub owner: u32,
    /// The process.
    pub tgid: u32,
}

/// Key of the account of a listening socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub net: u32,
    /// Local port, host byte order.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Local address; zeros: any.
    pub local: [u8; 16],
}

/// Sums of what has no account, by CPU: of TCP, UDP, unix and others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherSockets {
    /// As in [`Socket`].
    pub tx_bytes: u64,
    /// As in [`Socket`], without what was spliced.
    pub rx_bytes: u64,
    /// As in [`Socket`].
    pub tx_calls: u64,
    /// As in [`Socket`].
    pub rx_calls: u64,
    /// As in [`Socket`].
    pub tx_errors: u64,
    /// As in [`Socket`].
    pub rx_errors: u64,
    /// Connections that this host's processes began.
    pub connects: u64,
    /// Connections that listening sockets took.
    pub accepts: u64,
}

/// Kinds of [`OtherSockets`].
pub const OTHER_KINDS: usize = 4;

/// The kind of a socket among [`OtherSockets`].
#[inline(always)]
pub const fn other_kind(family: u16, protocol: u16) -> u32 {
    match (family, protocol) {
        (AF_UNIX, _) => 2,
        (_, TCP) => 0,
        (_, UDP) => 1,
        _ => 3,
    }
}

/// What the programs must be told about the kernel: offsets in bytes, each from the start of the structure that is named,
/// except those of `sock_common`, `inet_sock` and `tcp_sock`, which begin where `sock` does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetOffsets {
    /// 1: the offsets below are known.
    pub known: u32,
    /// `sock_common.skc_family`.
    pub family: u32,
    /// `sock_common.skc_state`.
    pub state: u32,
    /// `sock_common.skc_daddr`.
    pub daddr: u32,
    /// `sock_common.skc_rcv_saddr`.
    pub rcv_saddr: u32,
    /// `sock_common.skc_dport`, network byte order.
    pub dport: u32,
    /// `sock_common.skc_num`, host byte order.
    pub num: u32,
    /// `sock_common.skc_v6_daddr`.
    pub v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`.
    pub v6_rcv_saddr: u32,
    /// `sock_common.skc_net.net`.
    pub net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `sock.sk_protocol`.
    pub protocol: u32,
    /// `sock.sk_err`.
    pub err: u32,
    /// `sock.sk_drops`.
    pub drops: u32,
    /// `sock.sk_drop_counters`; 0: there is none.
    pub drop_counters: u32,
    /// `numa_drop_counters.drops0`.
    pub drops0: u32,
    /// `numa_drop_counters.drops1`.
    pub drops1: u32,
    /// `inet_sock.inet_sport`, network byte order.
    pub sport: u32,
    /// `tcp_sock.srtt_us`, eighths of us.
    pub srtt_us: u32,
    /// `tcp_sock.total_retrans`.
    pub total_retrans: u32,
    /// `tcp_sock.copied_seq`.
    pub copied_seq: u32,
    /// `file.private_data`.
    pub private_data: u32,
    /// `socket.sk`.
    pub socket_sk: u32,
    /// `sk_buff.len`.
    pub skb_len: u32,
    /// `sk_buff.sk`.
    pub skb_sk: u32,
}

impl NetOffsets {
    /// Nothing known: the programs that need them are not loaded.
    pub const UNKNOWN: Self = Self {
        known: 0,
        family: 0,
        state: 0,
        daddr: 0,
        rcv_saddr: 0,
        dport: 0,
        num: 0,
        v6_daddr: 0,
        v6_rcv_saddr: 0,
        net: 0,
        net_inum: 0,
        protocol: 0,
        err: 0,
        drops: 0,
        drop_counters: 0,
        drops0: 0,
        drops1: 0,
        sport: 0,
        srtt_us: 0,
        total_retrans: 0,
        copied_seq: 0,
        private_data: 0,
        socket_sk: 0,
        skb_len: 0,
        skb_sk: 0,
    };
}

const _: () = assert!(size_of::<NetOffsets>() == 25 * 4);

#[cfg(feature = "user")]
mod user {
    // SAFETY: repr(C), integers only, no padding (sizes asserted above or plain); every bit pattern is valid.
    unsafe impl aya::Pod for super::Socket {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::UserKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ListenerKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::OtherSockets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NetOffsets {}
}
