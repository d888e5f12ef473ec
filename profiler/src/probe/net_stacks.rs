//! Events `net-tx` and `net-rx`, user side: raw tracepoints that are hit when a task has sent or received.

use profiler_common::{
    probe::net_stacks::{RECEIVED, SENT},
    sample::{Programs, What},
};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec, switches};
use crate::{
    bpf::{
        BpfError,
        load::{Attached, Kernel},
        samples::{Samples, Sizing},
    },
    model::Unit,
};

/// The tracepoint of what is sent.
pub const SENT_TRACEPOINT: &str = "sock_send_length";

/// The tracepoint of what is received.
pub const RECEIVED_TRACEPOINT: &str = "sock_recv_length";

/// What the kernel functions that a hit calls begin with (net/socket.c, kernel/trace/bpf_trace.c): inside of them is only how
/// the program is reached.
pub const INSIDE: &[&str] = &["call_trace_sock_", "__traceiter_", "__bpf_trace_", "bpf_trace_run"];

/// The registry entry of `net-tx`.
pub const TX: ProbeSpec = ProbeSpec {
    event: Event::NetTx,
    name: "net-tx",
    summary: "bytes that tasks send through sockets, by the stack that does it",
    hooks: &["raw tracepoint: sock_send_length"],
    hooked: None,
    sample_types: &[
        SampleTypeSpec {
            name: "net-tx",
            unit: Unit::Bytes,
            what: What::Sent,
            amount: Amount::Sum,
            summary: "bytes sent, without headers and what is sent again",
        },
        SampleTypeSpec {
            name: "net-tx-calls",
            unit: Unit::Count,
            what: What::Sent,
            amount: Amount::Count,
            summary: "calls that sent them",
        },
    ],
    programs: SENT,
    minimum_kernel: (6, 3),
    requires: &["perf-events", "bpf", "btf"],
};

/// The registry entry of `net-rx`.
pub const RX: ProbeSpec = ProbeSpec {
    event: Event::NetRx,
    name: "net-rx",
    summary: "bytes that tasks receive through sockets, by the stack that does it",
    hooks: &["raw tracepoint: sock_recv_length"],
    sample_types: &[
        SampleTypeSpec {
            name: "net-rx",
            unit: Unit::Bytes,
            what: What::Received,
            amount: Amount::Sum,
            summary: "bytes received, without headers",
        },
        SampleTypeSpec {
            name: "net-rx-calls",
            unit: Unit::Count,
            what: What::Received,
            amount: Amount::Count,
            summary: "calls that received them",
        },
    ],
    programs: RECEIVED,
    ..TX
};

/// As for switches: a thread sends and receives in few places.
pub fn sizing(cpus: usize) -> Sizing {
    switches::sizing(cpus)
}

/// The attached probe of one of the two.
pub struct NetStacksProbe {
    programs: Programs,
    tracepoint: &'static str,
    attached: Option<Attached>,
}

impl NetStacksProbe {
    /// Loads the program; it is not attached yet. `sends`: that of what is sent.
    pub fn open(kernel: &mut Kernel, sends: bool) -> Result<Self, BpfError> {
        let (programs, tracepoint) =
            if sends { (SENT, SENT_TRACEPOINT) } else { (RECEIVED, RECEIVED_TRACEPOINT) };
        kernel.load_program(programs.sample)?;
        Ok(Self { programs, tracepoint, attached: None })
    }

    /// Attaches the program.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        self.attached = Some(kernel.attach(self.programs.sample, self.tracepoint)?);
        Ok(())
    }

    /// Detaches the program and waits until it runs nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), BpfError> {
        drop(self.attached.take());
        samples.wait_for_programs()
    }
}
