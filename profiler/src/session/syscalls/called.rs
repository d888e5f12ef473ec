//! What was called in a window: where processes come and go, tens of thousands of sums each ten seconds. So they are left as the
//! kernel side counted them, and are named when they are summed up.

use std::borrow::Cow;

use profiler_common::Comm;

use crate::{host::syscalls::Abi, model::name::clean_c};

/// Which call; `None`: one that no kernel has.
pub type Number = Option<(Abi, u32)>;

/// The calls of a kind of a process, or of all that have no account of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Process id; `None`: not of one process.
    pub pid: Option<u32>,
    /// The process's name as the kernel has it; of none, if it is not of one process.
    pub comm: Comm,
    /// Which call.
    pub number: Number,
    /// Times that it was entered.
    pub count: u64,
    /// Times that it returned an error.
    pub errors: u64,
    /// Time in calls that returned, ns.
    pub total_ns: u64,
    /// The same by bucket, ascending ([`crate::session::histogram`]).
    pub latencies: Vec<(u16, u64)>,
}

impl Called {
    /// The process's name.
    pub fn comm(&self) -> String {
        clean_c(&self.comm)
    }

    /// The call's name.
    pub fn name(&self) -> Cow<'static, str> {
        name(self.number)
    }
}

/// The name of a call.
pub fn name(number: Number) -> Cow<'static, str> {
    number.map_or(Cow::Borrowed("[unknown]"), |(abi, number)| abi.call(number))
}
