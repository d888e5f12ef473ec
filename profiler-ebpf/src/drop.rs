//! What `kfree_skb` says of a packet.

use aya_ebpf::Global;
use profiler_common::probe::packets::{DropConfig, NO_REASON};

#[unsafe(no_mangle)]
static DROP_CONFIG: Global<DropConfig> = Global::new(DropConfig::UNKNOWN);

/// A member, never a copy of all (see `crate::task`).
macro_rules! member {
    ($member:ident) => {{
        let config = (&raw const DROP_CONFIG).cast::<DropConfig>();
        // SAFETY: a member of a global that is initialized and never written; volatile because the loader replaces what
        // the compiler sees.
        unsafe { (&raw const (*config).$member).read_volatile() }
    }};
}

/// Why the packet is dropped, [`NO_REASON`] if the kernel does not say; `None`: it is done with, and not dropped.
/// `argument`: gives an argument of the tracepoint (skb, location, since Linux 5.17 reason, since 6.11 receiver).
#[inline(always)]
pub fn reason(argument: impl Fn(usize) -> u64) -> Option<u32> {
    if member!(reasons) == 0 {
        return Some(NO_REASON);
    }
    let reason = argument(2) as u32;
    let is_drop = reason == NO_REASON || (reason != member!(consumed) && reason != member!(not_dropped));
    is_drop.then_some(reason)
}

/// The socket that was to have it; null if there is none, or the kernel does not say.
#[inline(always)]
pub fn receiver(argument: impl Fn(usize) -> u64) -> *const u8 {
    if member!(receiver) == 0 { core::ptr::null() } else { argument(3) as *const u8 }
}
