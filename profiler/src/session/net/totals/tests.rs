//! Sums of accounts.

use std::collections::BTreeMap;

use profiler_common::probe::net::{AF_INET6, Socket, TCP, UDP, flag, state};
use proptest::prelude::*;

use super::*;

fn socket() -> Socket {
    Socket {
        sk: 1,
        tgid: 7,
        comm: *b"server\0\0\0\0\0\0\0\0\0\0",
        family: profiler_common::probe::net::AF_INET,
        protocol: TCP,
        local: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        remote: [10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        local_port: 443,
        remote_port: 50_000,
        state: state::ESTABLISHED,
        flags: flag::ACCEPTED,
        net: 5,
        ..Socket::EMPTY
    }
}

fn totals(by: By, sockets: &[(Socket, bool)]) -> (Totals, Names) {
    let (mut totals, mut names) = (Totals::new(by, false), Names::default());
    for &(socket, ended) in sockets {
        totals.add(&SocketAccount { socket, rtt: vec![(20, 3)], ended }, 10_000, &mut names);
    }
    (totals, names)
}

fn only_row(by: By, socket: Socket) -> Row {
    let (totals, names) = totals(by, &[(socket, false)]);
    let mut rows = totals.rows(1_000_000_000, &names);
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

#[test]
fn a_connection_has_its_ends_and_state() {
    let row =
        only_row(By::Connection, Socket { tx_bytes: 10, established_ns: 4_000, srtt_us: 30, ..socket() });
    assert_eq!((row.pid, row.comm.as_str(), row.protocol.as_str()), (Some(7), "server", "tcp"));
    assert_eq!(row.local.as_deref(), Some("10.0.0.1:443"));
    assert_eq!(row.remote.as_deref(), Some("10.0.0.2:50000"));
    assert_eq!((row.state, row.netns, row.open), (Some("ESTABLISHED"), Some(5), 1));
    assert_eq!((row.accepts, row.lifetime_ns, row.rtt_ns), (1, Some(6_000), Some(30_000)));
    assert_eq!((row.tx_bytes, row.tx_bytes_per_second), (10, 10));
}

#[test]
fn ipv4_in_ipv6_is_ipv4() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    let row = only_row(By::Connection, Socket { family: AF_INET6, local: mapped, ..socket() });
    assert_eq!(row.local.as_deref(), Some("10.0.0.1:443"));
    let v6 = Socket { family: AF_INET6, ..socket() };
    assert_eq!(only_row(By::Connection, v6).local.as_deref(), Some("[a00:1::]:443"));
}

#[test]
fn what_was_spliced_is_received_once() {
    let both = Socket { rx_bytes: 100, copied_bytes: 150, ..socket() };
    assert_eq!(only_row(By::Process, both).rx_bytes, 150);
    // Datagrams are not copied by that counter.
    let udp = Socket { protocol: UDP, rx_bytes: 100, ..socket() };
    assert_eq!(only_row(By::Process, udp).rx_bytes, 100);
}

#[test]
fn failures_and_broken_connections_have_their_errors() {
    let failed = Socket { flags: flag::CONNECTS, closed_ns: 9, error: 111, ..socket() };
    let given_up = Socket { error: 0, ..failed };
    let reset = Socket { established_ns: 5, closed_ns: 9, error: 104, ..socket() };
    let ended = Socket { established_ns: 5, closed_ns: 8, ..socket() };
    let all = [failed, given_up, reset, ended].map(|socket| (socket, true));
    let (totals, names) = totals(By::Process, &all);
    let rows = totals.rows(1, &names);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.failures, BTreeMap::from([("ECONNREFUSED".to_owned(), 1), ("closed".to_owned(), 1)]));
    assert_eq!(row.broken, BTreeMap::from([("ECONNRESET".to_owned(), 1)]));
    assert_eq!((row.failed, row.connects, row.accepts, row.open), (2, 2, 2, 0));
    assert_eq!(row.lifetime_ns, Some(3));
}

#[test]
fn the_port_is_that_of_the_side_that_listens() {
    let port = |flags, local_port, remote_port| {
        let socket = Socket { flags, local_port, remote_port, ..socket() };
        only_row(By::Port, Socket { tx_calls: 1, ..socket }).port
    };
    assert_eq!(port(flag::CONNECTS, 50_000, 443), Some(443));
    assert_eq!(port(flag::ACCEPTED, 443, 50_000), Some(443));
    assert_eq!(port(flag::LISTENS, 443, 0), Some(443));
    assert_eq!(port(flag::EXISTED, 50_000, 8_080), Some(8_080));
    assert_eq!(port(0, 53, 0), Some(53));
}

#[test]
fn another_users_account_has_bytes_and_no_connection() {
    let user = Socket { owner: 3, tx_bytes: 5, tx_calls: 1, drops: 9, tgid: 8, ..socket() };
    let row = only_row(By::Process, user);
    assert_eq!((row.tx_bytes, row.accepts, row.open, row.drops, row.rtt_ns), (5, 0, 0, 0, None));
}

#[test]
fn sums_beyond_the_limit_are_kept_together() {
    let (mut totals, mut names) = (Totals::new(By::Process, true), Names::default());
    for tgid in 0..MAX_KEPT as u32 + 3 {
        let socket = Socket { tgid, tx_bytes: 2, tx_calls: 1, ..socket() };
        totals.add(&SocketAccount { socket, rtt: Vec::new(), ended: true }, 0, &mut names);
    }
    assert_eq!(totals.merged(), 3);
    let rows = totals.rows(1, &names);
    let ended = rows.iter().find(|row| row.comm == "[ended]").unwrap();
    assert_eq!((ended.tx_bytes, ended.accepts), (6, 3));
    assert_eq!(rows.iter().map(|row| row.tx_bytes).sum::<u64>(), 2 * (MAX_KEPT as u64 + 3));
}

fn any_socket() -> impl Strategy<Value = (Socket, bool)> {
    let numbers = (0u64..1000, 0u64..1000, 0u32..5, 0u32..3, any::<bool>(), any::<bool>());
    numbers.prop_map(|(tx_bytes, rx_bytes, retransmits, tgid, closed, ended)| {
        let closed_ns = if closed { 9 } else { 0 };
        let socket = Socket { tx_bytes, rx_bytes, tx_calls: 1, retransmits, tgid, closed_ns, ..socket() };
        (Socket { established_ns: 4, error: u32::from(closed) * 104, ..socket }, ended)
    })
}

proptest! {
    /// However accounts are spread over intervals, the intervals' sums are those of the whole.
    #[test]
    fn intervals_add_up(earlier in prop::collection::vec(any_socket(), 0..8), later in prop::collection::vec(any_socket(), 0..8)) {
        let (first, names) = totals(By::Process, &earlier);
        let all: Vec<_> = earlier.iter().chain(&later).copied().collect();
        let (second, _) = totals(By::Process, &all);
        let since = second.rows_since(&first, 1, &names);
        let sum = |rows: &[Row], value: fn(&Row) -> u64| rows.iter().map(value).sum::<u64>();
        for value in [
            |row: &Row| row.tx_bytes,
            |row: &Row| row.rx_bytes,
            |row: &Row| row.retransmits,
            |row: &Row| row.accepts,
            |row: &Row| row.broken.values().sum(),
        ] {
            prop_assert_eq!(sum(&first.rows(1, &names), value) + sum(&since, value), sum(&second.rows(1, &names), value));
        }
    }
}
