//! Members of sockets, and what leads from an open file to its socket.

use std::path::Path;

use profiler_common::probe::net::NetOffsets;

use super::{BtfError, member_offsets};

/// The members that the programs of the network read.
///
/// # Errors
/// [`BtfError`]. There is no accounting of sockets then.
pub fn net_offsets(path: &Path) -> Result<NetOffsets, BtfError> {
    let [family, state, daddr, rcv_saddr, dport, num, v6_daddr, v6_rcv_saddr, net] = member_offsets(
        path,
        "sock_common",
        [
            &["skc_family"],
            &["skc_state"],
            &["skc_daddr"],
            &["skc_rcv_saddr"],
            &["skc_dport"],
            &["skc_num"],
            &["skc_v6_daddr"],
            &["skc_v6_rcv_saddr"],
            &["skc_net"],
        ],
    )?;
    let [protocol, err, drops] =
        member_offsets(path, "sock", [&["sk_protocol"], &["sk_err"], &["sk_drops"]])?;
    let [sport] = member_offsets(path, "inet_sock", [&["inet_sport"]])?;
    let [srtt_us, total_retrans, copied_seq] =
        member_offsets(path, "tcp_sock", [&["srtt_us"], &["total_retrans"], &["copied_seq"]])?;
    let [ns] = member_offsets(path, "net", [&["ns"]])?;
    let [inum] = member_offsets(path, "ns_common", [&["inum"]])?;
    let [private_data] = member_offsets(path, "file", [&["private_data"]])?;
    let [socket_sk] = member_offsets(path, "socket", [&["sk"]])?;
    let [skb_len, skb_sk] = member_offsets(path, "sk_buff", [&["len"], &["sk"]])?;
    let (drop_counters, drops0, drops1) = drop_counters(path)?;
    Ok(NetOffsets {
        known: 1,
        family,
        state,
        daddr,
        rcv_saddr,
        dport,
        num,
        v6_daddr,
        v6_rcv_saddr,
        net,
        net_inum: ns + inum,
        protocol,
        err,
        drops,
        drop_counters,
        drops0,
        drops1,
        sport,
        srtt_us,
        total_retrans,
        copied_seq,
        private_data,
        socket_sk,
        skb_len,
        skb_sk,
    })
}

/// `sock.sk_drop_counters` and the two counters that it points to (include/net/sock.h, since Linux 6.18); zeros if there
/// are none.
fn drop_counters(path: &Path) -> Result<(u32, u32, u32), BtfError> {
    match member_offsets(path, "sock", [&["sk_drop_counters"]]) {
        Ok([pointer]) => {
            let [drops0, drops1] = member_offsets(path, "numa_drop_counters", [&["drops0"], &["drops1"]])?;
            Ok((pointer, drops0, drops1))
        }
        Err(BtfError::NoMember { .. }) => Ok((0, 0, 0)),
        Err(error) => Err(error),
    }
}
