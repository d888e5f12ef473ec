//! Event `connect`: who asks for connections, and where, and how long it takes to have them, or to know that they fail.
//!
//! Hooks: raw tracepoint `inet_sock_set_state` (sk, oldstate, newstate), twice: once for the beginning, which is in the task
//! that asks, where its stacks are captured; once for the end, which is wherever a packet comes in. An entry is found by the
//! socket, whose lock is held at both.
//!
//! The ends of two connections that a thread asked for in one place can be counted on two CPUs at the same time.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{HashMap, ProgramArray},
    helpers::generated::bpf_ktime_get_ns,
    macros::btf_map,
    programs::RawTracePointContext,
};
use profiler_common::{
    loss::Loss,
    probe::{
        net::{TCP, state},
        net_stacks::{Connecting, FAILED, MAX_CONNECTING},
    },
    sample::What,
};

use crate::{
    loss,
    probe::net::member,
    sample::{self, Pending, Probe},
    unwind::Slot,
};

/// Connections that were asked for, by their socket. Shrunk to one entry at load if nobody asks.
#[btf_map]
static CONNECTING: HashMap<u64, Connecting, MAX_CONNECTING> = HashMap::new();

#[btf_map]
static CONNECT_PROGRAMS: ProgramArray<2> = ProgramArray::new();

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// The probe of beginnings.
pub enum Connect {}

impl Probe for Connect {
    type Context = RawTracePointContext;
    const WHAT: What = What::Connect;
    const SLOT: Slot = Slot::Syscall;
    const IDLE_TASK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &CONNECT_PROGRAMS
    }

    #[inline(always)]
    fn wanted(ctx: &RawTracePointContext) -> bool {
        ctx.arg::<u64>(2) as u32 == state::SYN_SENT && member::protocol::<false>(ctx.arg(0)) == TCP
    }

    /// It counts when it is known how it ends; its time begins when its stack has been walked.
    #[inline(always)]
    fn count(ctx: &RawTracePointContext, sample: &Pending) {
        let new = Connecting { key: sample.key, comm: sample.comm, at_ns: sample.at_ns, since_ns: now() };
        if CONNECTING.insert(ctx.arg::<u64>(0), new, BPF_ANY as u64).is_err() {
            loss::count(Loss::ConnectingFull);
        }
    }
}

/// A socket's state changes: if it was connecting, it is not any more.
#[inline(always)]
pub fn ended(ctx: &RawTracePointContext) {
    let (sk, old, new) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as u32);
    if old != state::SYN_SENT {
        return;
    }
    let Some(connecting) = CONNECTING.get_ptr(sk) else { return };
    // SAFETY: a map value stays valid memory while the program runs, and the socket's lock is held.
    let mut connecting = unsafe { *connecting };
    _ = CONNECTING.remove(sk);
    if new == state::CLOSE {
        connecting.key.detail = FAILED;
    }
    let ns = now().saturating_sub(connecting.since_ns);
    sample::add_shared(&connecting.key, ns, connecting.at_ns, &connecting.comm, BPF_NOEXIST as u64);
}
