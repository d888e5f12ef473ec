//! Events `net-tx` and `net-rx`: who sends and receives how much, and where.
//!
//! Hooks: raw tracepoints `sock_send_length` and `sock_recv_length` (sk, ret, flags), since Linux 6.3, hit by the task that
//! sent or received, when it has. Yields counts keyed as those of the `cpu` probe, with bytes as their sum and the kind of
//! the socket as their detail.
//!
//! They are hit in system calls, behind the program of the call's entry and with none inside: they share its memory.

pub mod connect;

use aya_ebpf::{btf_maps::ProgramArray, macros::btf_map, programs::RawTracePointContext};
use profiler_common::{probe::net::other_kind, sample::What};

use super::net::{NO_DATA, member};
use crate::{sample::Probe, unwind::Slot};

#[btf_map]
static NETSTACKS_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe. `SENDS`: of what is sent, else of what is received.
pub enum NetStacks<const SENDS: bool> {}

impl<const SENDS: bool> Probe for NetStacks<SENDS> {
    type Context = RawTracePointContext;
    const WHAT: What = if SENDS { What::Sent } else { What::Received };
    const SLOT: Slot = Slot::Syscall;
    const IDLE_TASK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &NETSTACKS_PROGRAMS
    }

    #[inline(always)]
    fn wanted(ctx: &RawTracePointContext) -> bool {
        let is_data = SENDS || ctx.arg::<u64>(2) as u32 & NO_DATA == 0;
        is_data && ctx.arg::<u64>(1) as i32 > 0 && ctx.arg::<u64>(0) != 0
    }

    #[inline(always)]
    fn amount(ctx: &RawTracePointContext) -> u64 {
        u64::from(ctx.arg::<u64>(1) as u32)
    }

    #[inline(always)]
    fn detail(ctx: &RawTracePointContext, _of_current: bool) -> u32 {
        let sk: *const u8 = ctx.arg(0);
        other_kind(member::family::<false>(sk), member::protocol::<false>(sk))
    }
}
