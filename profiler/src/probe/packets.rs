//! Probe `packets`, user side: tracepoints of the network's core and of soft interrupts. It counts no samples: what it
//! yields are sums by interface and by kind of drop ([`crate::bpf::packets`]).

use aya::{Btf, BtfError};

use super::ProbeError;
use crate::{
    bpf::{
        accounts::wait_for_programs,
        load::{Attached, Kernel},
        packets::PacketMaps,
    },
    perf::clock::monotonic_ns,
};

/// Programs and the tracepoints with types that they are attached to, in this order: what takes packets out of the map of
/// those that are queued before what puts them in.
const TYPED: &[(&str, &str)] = &[
    ("packets_dropped", "kfree_skb"),
    ("packets_received", "netif_receive_skb"),
    ("packets_polled", "napi_poll"),
    ("packets_sent", "net_dev_xmit"),
    ("packets_start", "net_dev_start_xmit"),
    ("packets_queue", "net_dev_queue"),
];

/// Programs and the raw tracepoints that they are attached to.
const RAW: &[(&str, &str)] = &[("packets_softirq_end", "softirq_exit"), ("packets_softirq", "softirq_entry")];

/// Oldest kernel it works on, (major, minor).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 8);

/// `doctor` checks that must pass.
pub const REQUIRES: &[&str] = &["bpf", "btf"];

/// Kernel hooks, for documents.
pub const HOOKS: &str = "BTF tracepoints: kfree_skb, netif_receive_skb, napi_poll, net_dev_xmit, net_dev_start_xmit, \
net_dev_queue; raw tracepoints: softirq_entry/exit";

/// The attached probe.
pub struct PacketsProbe {
    attached: Vec<Attached>,
    /// What it yields.
    pub maps: PacketMaps,
    start_ns: u64,
}

impl PacketsProbe {
    /// Loads and attaches the programs; packets are counted from then on.
    pub fn open(kernel: &mut Kernel) -> Result<Self, ProbeError> {
        {
            // The kernel's types, which are large, are gone again before anything is counted.
            let btf =
                Btf::from_sys_fs().map_err(|error: BtfError| ProbeError::KernelTypes(error.to_string()))?;
            for &(program, tracepoint) in TYPED {
                kernel.load_typed(program, tracepoint, &btf)?;
            }
        }
        for &(program, _) in RAW {
            kernel.load_program(program)?;
        }
        let maps = PacketMaps::new(&mut kernel.ebpf)?;
        let mut attached = Vec::new();
        for &(program, tracepoint) in RAW {
            attached.push(kernel.attach(program, tracepoint)?);
        }
        for &(program, _) in TYPED {
            attached.push(kernel.attach_typed(program)?);
        }
        Ok(Self { attached, maps, start_ns: monotonic_ns() })
    }

    /// Stops; gives the time (`CLOCK_MONOTONIC`, ns) from which on nothing is counted any more.
    pub fn disable(&mut self) -> u64 {
        // What begins last ends first: no packet is put in that nothing takes out.
        while self.attached.pop().is_some() {}
        wait_for_programs();
        monotonic_ns()
    }

    /// When it began, `CLOCK_MONOTONIC`, ns.
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_name_every_hook() {
        for &(_, tracepoint) in TYPED.iter().chain(RAW) {
            let (name, _) = tracepoint.split_once("_exit").unwrap_or((tracepoint, ""));
            assert!(HOOKS.contains(name), "{tracepoint}");
        }
    }
}
