//! Log-linear histograms: each power of two is cut into [`BUCKETS`] equal buckets, so that the middle of a bucket is
//! within 3.2 % of all that is in it. The buckets of one power of two are a block; a histogram has only those blocks that
//! something fell into.

/// Buckets of a block.
pub const BUCKETS: usize = 16;

/// Blocks: up to 2^41, which are 36 minutes of nanoseconds.
pub const BLOCKS: usize = 38;

/// Position of the highest bit that is set; 0 for 0.
#[inline(always)]
pub const fn log2(value: u64) -> u32 {
    // By comparison: the eBPF machine has no instruction for it.
    let mut rest = value;
    let mut log = 0;
    if rest > 0xffff_ffff {
        rest >>= 32;
        log += 32;
    }
    if rest > 0xffff {
        rest >>= 16;
        log += 16;
    }
    if rest > 0xff {
        rest >>= 8;
        log += 8;
    }
    if rest > 0xf {
        rest >>= 4;
        log += 4;
    }
    if rest > 0x3 {
        rest >>= 2;
        log += 2;
    }
    if rest > 1 { log + 1 } else { log }
}

/// Block and bucket of a value. The first block has the values below [`BUCKETS`] one by one; the last bucket of all has
/// everything that is larger.
#[inline(always)]
pub const fn place(value: u64) -> (usize, usize) {
    if value < BUCKETS as u64 {
        return (0, value as usize);
    }
    let log = log2(value);
    let block = (log - 3) as usize;
    if block >= BLOCKS {
        return (BLOCKS - 1, BUCKETS - 1);
    }
    (block, (value >> (log - 4)) as usize & (BUCKETS - 1))
}

/// What a bucket holds: values of at least the first and less than the second number.
pub const fn bounds(block: usize, bucket: usize) -> (u64, u64) {
    if block == 0 {
        return (bucket as u64, bucket as u64 + 1);
    }
    let width = 1u64 << (block - 1);
    let lower = (BUCKETS + bucket) as u64 * width;
    (lower, lower + width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_their_bounds_say() {
        for shift in 0..64 {
            for offset in [0, 1, 3, (1u64 << shift) / 3, (1u64 << shift) - 1] {
                let value = (1u64 << shift) + offset.min((1 << shift) - 1);
                let (block, bucket) = place(value);
                assert!(block < BLOCKS && bucket < BUCKETS, "{value}");
                let (lower, upper) = bounds(block, bucket);
                let is_last = (block, bucket) == (BLOCKS - 1, BUCKETS - 1);
                assert!(lower <= value && (value < upper || is_last), "{value}: {lower}..{upper}");
            }
        }
        assert_eq!((place(0), place(15), place(16)), ((0, 0), (0, 15), (1, 0)));
        assert_eq!(bounds(BLOCKS - 1, BUCKETS - 1).1, 1 << 41);
    }

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut end = 0;
        for block in 0..BLOCKS {
            for bucket in 0..BUCKETS {
                let (lower, upper) = bounds(block, bucket);
                assert_eq!(lower, end);
                assert!(block == 0 || (upper - lower) * 16 <= lower, "{block} {bucket}");
                end = upper;
            }
        }
    }

    #[test]
    fn logarithms_are_the_highest_bit() {
        for value in [1u64, 2, 3, 4, 255, 256, 1 << 31, 1 << 39, u64::MAX >> 30, u64::MAX] {
            assert_eq!(log2(value), value.ilog2());
        }
        assert_eq!(log2(0), 0);
    }
}
