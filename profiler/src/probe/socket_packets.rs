//! Events `retransmit` and `drops`, user side: raw tracepoints of packets, whose sockets' owners the probe [`net`](super::net)
//! knows.

use profiler_common::{
    probe::socket_packets::{self as common},
    sample::What,
};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec, net_stacks, net_stacks::NetStacksProbe};
use crate::{
    bpf::{BpfError, load::Kernel},
    model::Unit,
};

/// The tracepoint of what is sent again.
pub const SENT_AGAIN_TRACEPOINT: &str = "tcp_retransmit_skb";

/// The tracepoint of what is dropped.
pub const DROPPED_TRACEPOINT: &str = "kfree_skb";

/// What the kernel functions that a hit calls begin with (kernel/trace/bpf_trace.c, net/core/skbuff.c): inside of them is only
/// how the program is reached.
pub const INSIDE: &[&str] =
    &["__traceiter_", "__bpf_trace_", "bpf_trace_run", "kfree_skb", "__kfree_skb", "sk_skb_reason_drop"];

/// The registry entry of `retransmit`.
pub const SENT_AGAIN: ProbeSpec = ProbeSpec {
    event: Event::Retransmit,
    name: "retransmit",
    summary: "TCP packets that are sent again, by the socket's process and what does it",
    hooks: &["raw tracepoint: tcp_retransmit_skb; those of `net`"],
    sample_types: &[
        SampleTypeSpec {
            name: "retransmit",
            unit: Unit::Count,
            what: What::SentAgain,
            amount: Amount::Count,
            summary: "packets sent again; one can be several segments on the wire",
        },
        SampleTypeSpec {
            name: "retransmit-bytes",
            unit: Unit::Bytes,
            what: What::SentAgain,
            amount: Amount::Sum,
            summary: "bytes sent again, without headers",
        },
    ],
    programs: common::SENT_AGAIN,
    minimum_kernel: super::net::MINIMUM_KERNEL,
    ..net_stacks::TX
};

/// The registry entry of `drops`.
pub const DROPPED: ProbeSpec = ProbeSpec {
    event: Event::Drops,
    name: "drops",
    summary: "packets that the kernel drops, by reason, the socket's process and what does it",
    hooks: &["raw tracepoint: kfree_skb; those of `net`"],
    sample_types: &[
        SampleTypeSpec {
            name: "drops",
            unit: Unit::Count,
            what: What::Dropped,
            amount: Amount::Count,
            summary: "packets dropped",
        },
        SampleTypeSpec {
            name: "drop-bytes",
            unit: Unit::Bytes,
            what: What::Dropped,
            amount: Amount::Sum,
            summary: "their bytes, with the headers that they still have",
        },
    ],
    programs: common::DROPPED,
    ..SENT_AGAIN
};

/// Loads the programs of one of these events; they are not attached yet.
pub fn open(kernel: &mut Kernel, event: Event) -> Result<NetStacksProbe, BpfError> {
    NetStacksProbe::open(
        kernel,
        match event {
            Event::Retransmit => &[(common::SENT_AGAIN.sample, SENT_AGAIN_TRACEPOINT)],
            _ => &[(common::DROPPED.sample, DROPPED_TRACEPOINT)],
        },
    )
}
