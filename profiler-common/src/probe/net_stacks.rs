//! The `net-tx` and `net-rx` events: bytes that tasks send and receive, by the stack that does it; and `connect`: connections
//! that they ask for.

use crate::{
    Comm,
    sample::{CountKey, Programs},
};

/// The programs of `net-tx`. Those that walk are the same for both.
pub const SENT: Programs = Programs {
    sample: "netstacks_sent",
    calls: "NETSTACKS_PROGRAMS",
    walk: "netstacks_walk",
    count: "netstacks_count",
};

/// The programs of `net-rx`.
pub const RECEIVED: Programs = Programs { sample: "netstacks_received", ..SENT };

/// The programs of `connect`, but for [`CONNECTED`].
pub const CONNECT: Programs = Programs {
    sample: "netstacks_connect",
    calls: "CONNECT_PROGRAMS",
    walk: "netstacks_connect_walk",
    count: "netstacks_connect_keep",
};

/// The program that is told how connections end that were asked for.
pub const CONNECTED: &str = "netstacks_connected";

/// Most connections that are followed at the same time until they are there. Shrunk to one at load if nobody asks.
pub const MAX_CONNECTING: usize = 16_384;

/// `CountKey::detail` of connections that failed.
pub const FAILED: u32 = 1;

/// A connection that was asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connecting {
    /// By whom, and where.
    pub key: CountKey,
    /// Name of the thread.
    pub comm: Comm,
    /// When its stacks were captured, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// When they had been.
    pub since_ns: u64,
}

const _: () = assert!(size_of::<Connecting>() == 72);
