//! What ports are usually for (/etc/services), and the names of addresses (the system's resolver, only if asked for).

use std::{
    collections::{BTreeSet, HashMap},
    ffi::CStr,
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::file;
use crate::model::name::clean;

/// Lines of /etc/services that are read.
const MAX_LINES: usize = 20_000;

/// Services by port and protocol. Without the file there are none.
pub fn services() -> HashMap<(u16, String), String> {
    parse(&file::read_text("/etc/services", file::LARGE).unwrap_or_default())
}

/// Lines are `NAME PORT/PROTOCOL ALIASES # COMMENT`, services(5). The first name of a port counts.
fn parse(text: &str) -> HashMap<(u16, String), String> {
    let mut services = HashMap::new();
    for line in text.lines().take(MAX_LINES) {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let (Some(name), Some(port)) = (words.next(), words.next())
            && let Some((port, protocol)) = port.split_once('/')
            && let Ok(port) = port.parse()
        {
            services.entry((port, protocol.to_owned())).or_insert_with(|| clean(name.as_bytes()));
        }
    }
    services
}

/// Names of addresses, by the system's resolver, as many as are known within a time. The resolver may ask the network; a
/// thread that waits for it is left behind.
pub fn host_names(addresses: BTreeSet<IpAddr>, within: Duration) -> HashMap<IpAddr, String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for address in addresses {
            // Nobody listens any more: the time is over.
            if send.send((address, host_name(address))).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + within;
    let mut names = HashMap::new();
    while let Ok((address, name)) = receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if let Some(name) = name {
            names.insert(address, name);
        }
    }
    names
}

/// The name of an address; `None`: it has none. May take as long as the resolver's time-outs.
fn host_name(address: IpAddr) -> Option<String> {
    let mut name = [0u8; 1025];
    let room = name.len() as libc::socklen_t;
    let from = raw_address(SocketAddr::new(address, 0));
    // SAFETY: the address is of the length that is given, and no more is written than there is room for.
    let failed = unsafe {
        libc::getnameinfo(
            from.0.as_ptr().cast(),
            from.1,
            name.as_mut_ptr().cast(),
            room,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (failed == 0).then(|| clean(name.to_bytes()))
}

/// `struct sockaddr_in` or `sockaddr_in6` of an address, and its length.
fn raw_address(address: SocketAddr) -> ([u64; 4], libc::socklen_t) {
    let mut bytes = [0u8; 32];
    let length = match address {
        SocketAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            bytes[8..24].copy_from_slice(&v6.ip().octets());
            size_of::<libc::sockaddr_in6>()
        }
    };
    let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at * 8 + i]));
    (std::array::from_fn(word), length as libc::socklen_t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_the_first_name_of_their_port() {
        let services = parse(
            "# comment\nssh 22/tcp\nwww\t80/tcp http # web\nweb 80/tcp\nbad x/tcp\nalone\ndns 53/udp\n",
        );
        let name = |port, protocol: &str| services.get(&(port, protocol.to_owned())).map(String::as_str);
        assert_eq!(
            [name(22, "tcp"), name(80, "tcp"), name(53, "udp")],
            [Some("ssh"), Some("www"), Some("dns")]
        );
        assert_eq!((name(22, "udp"), services.len()), (None, 3));
    }

    #[test]
    fn the_resolver_is_given_time_and_no_more() {
        let addresses = BTreeSet::from([IpAddr::from([127, 0, 0, 1])]);
        assert!(host_names(addresses, Duration::ZERO).len() <= 1);
        // Whether the machine has a name for it is its affair.
        for address in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])] {
            assert!(host_name(address).is_none_or(|name| !name.is_empty()));
        }
    }
}
