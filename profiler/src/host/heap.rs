//! The process's own heap.

/// Gives the kernel back what of the heap is free.
///
/// glibc keeps what was freed below what is still used, for good: after a few large and short tables (unwind rows of a
/// library, a window that is made) the resident memory is twice what is used. `malloc_trim(3)` gives back whole pages of
/// all arenas, wherever they are. musl does that by itself.
pub fn trim() {
    // SAFETY: the function takes the arenas' locks itself, and touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    /// Resident anonymous memory, bytes.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn free_memory_below_used_memory_goes_back() {
        // Pieces of 4 KiB, 256 MiB in all, then one behind them that stays. Other tests use memory meanwhile.
        let pieces: Vec<Vec<u8>> = (0..65_536).map(|_| vec![1; 4096]).collect();
        let last = vec![1_u8; 4096];
        let used = resident();
        drop(pieces);
        trim();
        let left = resident();
        assert!(left + (192 << 20) < used, "{left} of {used} bytes");
        assert_eq!(last[4095], 1);
    }
}
