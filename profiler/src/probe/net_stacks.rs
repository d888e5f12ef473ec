//! Events `net-tx`, `net-rx` and `connect`, user side: raw tracepoints that are hit when a task has sent or received, and when
//! a connection changes its state.

use std::os::fd::{AsFd as _, OwnedFd};

use profiler_common::{
    probe::net_stacks::{self, CONNECTED, RECEIVED, SENT},
    sample::What,
};

use super::{Amount, Event, ProbeSpec, SampleTypeSpec, switches};
use crate::{
    bpf::{
        BpfError,
        load::{Attached, Kernel},
        samples::{Samples, Sizing},
        stats::missed_of,
    },
    model::Unit,
};

/// The tracepoint of what is sent.
pub const SENT_TRACEPOINT: &str = "sock_send_length";

/// The tracepoint of what is received.
pub const RECEIVED_TRACEPOINT: &str = "sock_recv_length";

/// The tracepoint of connections.
pub const STATE_TRACEPOINT: &str = "inet_sock_set_state";

/// What the kernel functions that a hit calls begin with (net/socket.c, kernel/trace/bpf_trace.c): inside of them is only how
/// the program is reached.
pub const INSIDE: &[&str] = &[
    "call_trace_sock_",
    "__traceiter_",
    "__bpf_trace_",
    "bpf_trace_run",
    "inet_sk_set_state",
    "tcp_set_state",
];

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

/// The registry entry of `connect`.
pub const CONNECT: ProbeSpec = ProbeSpec {
    event: Event::Connect,
    name: "connect",
    summary: "time until TCP connections that tasks ask for are there or fail, by the stack that asks",
    hooks: &["raw tracepoint: inet_sock_set_state"],
    sample_types: &[
        SampleTypeSpec {
            name: "connect",
            unit: Unit::Nanoseconds,
            what: What::Connect,
            amount: Amount::Time,
            summary: "time from asking for a connection to having it, or to knowing that it fails",
        },
        SampleTypeSpec {
            name: "connects",
            unit: Unit::Count,
            what: What::Connect,
            amount: Amount::Count,
            summary: "connections asked for, of which that is known",
        },
    ],
    programs: net_stacks::CONNECT,
    minimum_kernel: (5, 8),
    ..TX
};

/// As for switches: a thread sends and receives in few places.
pub fn sizing(cpus: usize) -> Sizing {
    switches::sizing(cpus)
}

/// Loads the programs of one of these events; they are not attached yet.
pub fn open(kernel: &mut Kernel, event: Event) -> Result<NetStacksProbe, BpfError> {
    NetStacksProbe::open(
        kernel,
        match event {
            Event::NetTx => &[(SENT.sample, SENT_TRACEPOINT)],
            Event::NetRx => &[(RECEIVED.sample, RECEIVED_TRACEPOINT)],
            // What follows a beginning must be seen.
            _ => &[(CONNECTED, STATE_TRACEPOINT), (net_stacks::CONNECT.sample, STATE_TRACEPOINT)],
        },
    )
}

/// A program and its raw tracepoint.
type Hooked = (&'static str, &'static str);

/// The attached probe of an event of sockets.
pub struct NetStacksProbe {
    programs: &'static [Hooked],
    shared: Vec<OwnedFd>,
    attached: Vec<Attached>,
}

impl NetStacksProbe {
    /// Loads the programs; they are not attached yet.
    pub fn open(kernel: &mut Kernel, programs: &'static [Hooked]) -> Result<Self, BpfError> {
        let shared = programs.iter().map(|&(program, _)| kernel.load_and_share(program));
        Ok(Self { programs, shared: shared.collect::<Result<_, _>>()?, attached: Vec::new() })
    }

    /// Attaches the programs, in their order.
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<(), BpfError> {
        for &(program, tracepoint) in self.programs {
            self.attached.push(kernel.attach(program, tracepoint)?);
        }
        Ok(())
    }

    /// Hits that the kernel ran no program at, because it ran on that CPU already.
    pub fn missed(&self) -> u64 {
        self.shared.iter().map(|program| missed_of(program.as_fd())).sum()
    }

    /// Detaches the programs and waits until they run nowhere.
    pub fn disable(&mut self, samples: &mut Samples) -> Result<(), BpfError> {
        self.attached.clear();
        samples.wait_for_programs()
    }
}
