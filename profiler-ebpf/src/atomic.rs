//! Sums that several CPUs add to, or programs that interrupt each other.

use core::arch::asm;

/// Adds to a sum that other CPUs add to as well.
#[inline(always)]
pub fn add(sum: &mut u64, number: u64) {
    // The library has no atomic addition for a machine that cannot compare and exchange; this one (`BPF_ADD`, all kernels)
    // gives no old value back.
    // SAFETY: aligned, and valid as long as the reference is.
    unsafe {
        asm!("lock *(u64 *)({sum} + 0) += {number}", sum = in(reg) sum, number = in(reg) number, options(nostack));
    }
}
