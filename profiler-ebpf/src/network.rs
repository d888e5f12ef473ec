//! Entry points of what looks at the host's network.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::probe::packets;

/// `net_dev_queue(skb)`: a packet is about to be queued, or sent at once.
#[btf_tracepoint(function = "net_dev_queue")]
pub fn packets_queue(ctx: BtfTracePointContext) -> i32 {
    packets::queued(&ctx);
    0
}

/// `net_dev_start_xmit(skb, dev)`: a packet is handed to the driver.
#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn packets_start(ctx: BtfTracePointContext) -> i32 {
    packets::started(&ctx);
    0
}

/// `net_dev_xmit(skb, rc, dev, len)`: what the driver said.
#[btf_tracepoint(function = "net_dev_xmit")]
pub fn packets_sent(ctx: BtfTracePointContext) -> i32 {
    packets::sent(&ctx);
    0
}

/// `netif_receive_skb(skb)`: a packet comes from a driver.
#[btf_tracepoint(function = "netif_receive_skb")]
pub fn packets_received(ctx: BtfTracePointContext) -> i32 {
    packets::received(&ctx);
    0
}

/// `kfree_skb(skb, location, reason)`: a packet is dropped.
#[btf_tracepoint(function = "kfree_skb")]
pub fn packets_dropped(ctx: BtfTracePointContext) -> i32 {
    packets::dropped(&ctx);
    0
}

/// `napi_poll(napi, work, budget)`: a receive queue was polled.
#[btf_tracepoint(function = "napi_poll")]
pub fn packets_polled(ctx: BtfTracePointContext) -> i32 {
    packets::polled(&ctx);
    0
}

/// `softirq_entry(vec)`: a soft interrupt begins.
#[raw_tracepoint(tracepoint = "softirq_entry")]
pub fn packets_softirq(ctx: RawTracePointContext) -> i32 {
    packets::softirq_entry(&ctx);
    0
}

/// `softirq_exit(vec)`: it ends.
#[raw_tracepoint(tracepoint = "softirq_exit")]
pub fn packets_softirq_end(ctx: RawTracePointContext) -> i32 {
    packets::softirq_exit(&ctx);
    0
}
