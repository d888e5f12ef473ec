//! What sums of sockets are of.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use profiler_common::probe::net::{AF_INET6, AF_UNIX, OTHER_KINDS, Socket, TCP, UDP, flag};

use super::names::Names;
use crate::model::net::By;

/// Whose sockets: the id of the process and when it was made.
pub type Process = (u32, u64);

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
pub type Key = (Of, Protocol);

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
    pub const KINDS: [Self; OTHER_KINDS] = [Self::Tcp, Self::Udp, Self::Unix, Self::Other(u16::MAX)];

    pub fn name(self) -> String {
        match self {
            Self::Tcp => "tcp".to_owned(),
            Self::Udp => "udp".to_owned(),
            Self::Unix => "unix".to_owned(),
            Self::Other(u16::MAX) => "other".to_owned(),
            Self::Other(number) => number.to_string(),
        }
    }
}

/// What a socket's sum is of.
pub fn of(by: By, socket: &Socket, names: &mut Names) -> Key {
    let process = (socket.tgid, socket.process_start_ns);
    let container = names.look_up(process);
    let local = SocketAddr::new(address(socket.family, socket.local), socket.local_port);
    let remote = SocketAddr::new(address(socket.family, socket.remote), socket.remote_port);
    let has_remote = socket.remote_port != 0;
    let of = match by {
        By::Process => Of::Process(process),
        By::Connection => Of::Connection(process, local, remote, socket.net),
        By::Remote => Of::Remote(has_remote.then_some(remote.ip())),
        By::Port => Of::Port(service_port(socket, names)),
        By::Container => Of::Container(container),
    };
    (of, Protocol::of(socket))
}

/// An address; IPv4 in IPv6 is shown as what it is.
fn address(family: u16, bytes: [u8; 16]) -> IpAddr {
    if family == AF_INET6 {
        return Ipv6Addr::from(bytes).to_canonical();
    }
    let [a, b, c, d, ..] = bytes;
    Ipv4Addr::new(a, b, c, d).into()
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
