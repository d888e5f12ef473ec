//! Events `retransmit` and `drops`: whose packets are sent again or dropped, and where.
//!
//! Hooks: raw tracepoints `tcp_retransmit_skb` (sk, skb) and `kfree_skb` (skb, location, since Linux 5.17 reason, since 6.11
//! receiver). Yields counts keyed as those of the `cpu` probe, with bytes as their sum, and why as their detail.
//!
//! Both are hit in a task's own call, which is then whose it is, with its stacks; and in soft interrupts, where whoever runs
//! has nothing to do with it. There it is the process's that the socket belongs to, as the probe `net` keeps it, with the
//! stack of the interrupt.

use aya_ebpf::{EbpfContext as _, btf_maps::ProgramArray, macros::btf_map, programs::RawTracePointContext};
use profiler_common::{
    probe::{
        packets::NO_REASON,
        socket_packets::{Detail, NO_OWNER, NO_SOCKET},
    },
    sample::What,
};

use super::net::{accounts::owner_of, member};
use crate::{
    drop, filter,
    sample::{Owner, Probe, Whose},
    sched::{
        blocked,
        member::{get, pointer},
    },
    task,
    unwind::Slot,
};

#[btf_map]
static SOCKPACKETS_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The probe. `SENT`: of packets that are sent again, else of those that are dropped.
pub enum SocketPackets<const SENT: bool> {}

impl<const SENT: bool> SocketPackets<SENT> {
    #[inline(always)]
    fn packet(ctx: &RawTracePointContext) -> *const u8 {
        ctx.arg(if SENT { 1 } else { 0 })
    }

    #[inline(always)]
    fn socket(ctx: &RawTracePointContext) -> *const u8 {
        if SENT {
            return ctx.arg(0);
        }
        let receiver = drop::receiver(|index| ctx.arg(index));
        if receiver.is_null() {
            pointer::<false>(Self::packet(ctx), member::net_offset!(skb_sk))
        } else {
            receiver
        }
    }
}

impl<const SENT: bool> Probe for SocketPackets<SENT> {
    type Context = RawTracePointContext;
    const WHAT: What = if SENT { What::SentAgain } else { What::Dropped };
    const SLOT: Slot = Slot::Socket;
    const IDLE_TASK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &SOCKPACKETS_PROGRAMS
    }

    #[inline(always)]
    fn wanted(ctx: &RawTracePointContext) -> bool {
        SENT || drop::reason(|index| ctx.arg(index)).is_some()
    }

    #[inline(always)]
    fn whose(ctx: &RawTracePointContext) -> Whose {
        // Not an interrupt, which has a stack of its own or hits user mode; nor a thread that runs soft interrupts.
        if task::is_on_stack(ctx.as_ptr()) && blocked::is_in_call() {
            return Whose::Current;
        }
        let sk = Self::socket(ctx);
        match owner_of(sk) {
            Some(socket) if socket.tgid != 0 => {
                Whose::Process(Owner { pid: socket.tgid, incarnation: socket.incarnation, comm: socket.comm })
            }
            _ if !sk.is_null() => Whose::Process(Owner { pid: 0, incarnation: sk as u64, comm: NO_OWNER }),
            _ if filter::config().is_open() => {
                Whose::Process(Owner { pid: 0, incarnation: NO_SOCKET, comm: NO_OWNER })
            }
            _ => Whose::Nobody,
        }
    }

    #[inline(always)]
    fn amount(ctx: &RawTracePointContext) -> u64 {
        u64::from(get::<false, u32>(Self::packet(ctx), member::net_offset!(skb_len)))
    }

    #[inline(always)]
    fn detail(ctx: &RawTracePointContext, of_current: bool) -> u32 {
        let reason = if SENT { None } else { drop::reason(|index| ctx.arg(index)) };
        Detail::of(reason.unwrap_or(NO_REASON), !of_current).0
    }
}
