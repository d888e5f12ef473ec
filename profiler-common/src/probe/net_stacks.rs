//! The `net-tx` and `net-rx` events: bytes that tasks send and receive, by the stack that does it.

use crate::sample::Programs;

/// The programs of `net-tx`. Those that walk are the same for both.
pub const SENT: Programs = Programs {
    sample: "netstacks_sent",
    calls: "NETSTACKS_PROGRAMS",
    walk: "netstacks_walk",
    count: "netstacks_count",
};

/// The programs of `net-rx`.
pub const RECEIVED: Programs = Programs { sample: "netstacks_received", ..SENT };
