//! The `retransmit` and `drops` events: packets that were sent again, or dropped, by the socket whose they are.

use super::packets::NO_REASON;
use crate::{Comm, sample::Programs};

/// The programs of `retransmit`. Those that walk are the same for both.
pub const SENT_AGAIN: Programs = Programs {
    sample: "sockpackets_sent_again",
    calls: "SOCKPACKETS_PROGRAMS",
    walk: "sockpackets_walk",
    count: "sockpackets_count",
};

/// The programs of `drops`.
pub const DROPPED: Programs = Programs { sample: "sockpackets_dropped", ..SENT_AGAIN };

/// The name of the process that packets are counted at whose socket is nobody's that is known.
pub const NO_OWNER: Comm = *b"[no owner]\0\0\0\0\0\0";

/// `CountKey::incarnation` of what is counted at process 0 and of no socket. Of a socket whose owner the kernel side does not
/// know it is the socket's address: user space finds out (`session::owners`).
pub const NO_SOCKET: u64 = u64::MAX;

/// `CountKey::detail` of these events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail(pub u32);

impl Detail {
    const ELSEWHERE: u32 = 1 << 31;

    /// Why a packet was dropped (`packets::Drop::reason`), and whether it was elsewhere than in the owner's code: in an
    /// interrupt, or in a thread of the kernel's.
    #[inline(always)]
    pub const fn of(reason: u32, elsewhere: bool) -> Self {
        Self(reason & !Self::ELSEWHERE | if elsewhere { Self::ELSEWHERE } else { 0 })
    }

    /// Why.
    pub const fn reason(self) -> u32 {
        let reason = self.0 & !Self::ELSEWHERE;
        if reason == NO_REASON & !Self::ELSEWHERE { NO_REASON } else { reason }
    }

    /// Whether it was not in code of the owner's.
    pub const fn is_elsewhere(self) -> bool {
        self.0 & Self::ELSEWHERE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_says_why_and_where() {
        for reason in [0, 7, 0x5_0007, NO_REASON] {
            for elsewhere in [false, true] {
                let detail = Detail::of(reason, elsewhere);
                assert_eq!((detail.reason(), detail.is_elsewhere()), (reason, elsewhere));
            }
        }
    }
}
