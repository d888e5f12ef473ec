//! Numbers by key, both ascending, as lists: errors by number, and histograms by the index of the bucket
//! ([`profiler_common::hist`], `block * BUCKETS + bucket`).

use profiler_common::hist::{BUCKETS, bounds};

use crate::model::sched::Histogram;

/// Adds numbers to a list by key, both ascending.
pub fn merge<K: Copy + Ord>(into: &mut Vec<(K, u64)>, from: impl IntoIterator<Item = (K, u64)>) {
    for (key, number) in from {
        // Most are added to none, or behind all others.
        if into.last().is_none_or(|&(last, _)| last < key) {
            into.push((key, number));
            continue;
        }
        match into.binary_search_by_key(&key, |&(key, _)| key) {
            Ok(at) => into[at].1 += number,
            Err(at) => into.insert(at, (key, number)),
        }
    }
}

/// What is in one list more than in an earlier one.
pub fn more<K: Copy + Ord>(now: &[(K, u64)], before: &[(K, u64)]) -> Vec<(K, u64)> {
    let earlier = |key| before.binary_search_by_key(&key, |&(key, _)| key).map_or(0, |at| before[at].1);
    let added = now.iter().map(|&(key, number)| (key, number.saturating_sub(earlier(key))));
    added.filter(|&(_, number)| number != 0).collect()
}

/// What a bucket holds: values of at least the first and less than the second number.
pub fn range(bucket: u16) -> (u64, u64) {
    bounds(usize::from(bucket) / BUCKETS, usize::from(bucket) % BUCKETS)
}

/// What the buckets hold, as reports have it.
pub fn ranges(histogram: &[(u16, u64)]) -> Histogram {
    let of = |&(bucket, n): &(u16, u64)| (range(bucket).0, range(bucket).1, n);
    histogram.iter().map(of).collect()
}

/// The middle of the bucket that the `percent`-th percentile is in; `None`: the histogram is empty.
pub fn percentile(histogram: &[(u16, u64)], percent: u64) -> Option<u64> {
    let total: u64 = histogram.iter().map(|&(_, n)| n).sum();
    let rank = (total * percent).div_ceil(100);
    let mut seen = 0;
    let reaches = |&&(_, n): &&(u16, u64)| {
        seen += n;
        seen >= rank
    };
    let (lower, upper) = range(histogram.iter().find(reaches)?.0);
    Some(lower + (upper - lower) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_their_buckets() {
        let histogram = [(3, 50), (20, 49), (40, 1)];
        assert_eq!(percentile(&histogram, 50), Some(3));
        let (lower, upper) = range(20);
        assert!((lower..upper).contains(&percentile(&histogram, 99).unwrap()));
        assert!(percentile(&histogram, 100).unwrap() >= range(40).0);
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn lists_are_added_and_subtracted_by_key() {
        let mut list = vec![(1, 5), (7, 1)];
        merge(&mut list, [(3, 2), (7, 4)]);
        assert_eq!(list, [(1, 5), (3, 2), (7, 5)]);
        assert_eq!(more(&list, &[(1, 5), (7, 1)]), [(3, 2), (7, 4)]);
    }
}
