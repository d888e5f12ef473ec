//! Histograms as bytes: LEB128 numbers, three for each bucket: from, less the end of the one before; to, less from;
//! count.

use std::collections::BTreeMap;

use super::error::damage;
use crate::model::sched::Histogram;

/// Most buckets of a histogram that is read: what the kernel side has are some hundreds.
const MAX_BUCKETS: usize = 1 << 16;

/// As bytes; `None` if it is no histogram: buckets that overlap, or are out of order. [`add`] makes none of these.
pub fn encode(buckets: &[(u64, u64, u64)]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(buckets.len() * 5);
    let mut end = 0;
    for &(from, to, count) in buckets {
        for number in [from.checked_sub(end)?, to.checked_sub(from)?, count] {
            leb128(number, &mut bytes);
        }
        end = to;
    }
    Some(bytes)
}

/// From bytes.
pub fn decode(mut bytes: &[u8]) -> rusqlite::Result<Histogram> {
    let mut buckets = Histogram::new();
    let mut end = 0u64;
    while !bytes.is_empty() {
        let mut next = || read_leb128(&mut bytes).ok_or_else(|| damage("a histogram that is cut off"));
        let (gap, width, count) = (next()?, next()?, next()?);
        let bounds = end.checked_add(gap).and_then(|from| Some((from, from.checked_add(width)?)));
        let (from, to) = bounds.ok_or_else(|| damage("a histogram beyond all numbers"))?;
        if buckets.len() == MAX_BUCKETS {
            return Err(damage("a histogram with too many buckets"));
        }
        buckets.push((from, to, count));
        end = to;
    }
    Ok(buckets)
}

/// The sum of two. Buckets of one bound add up; all of a metric have the same bounds, and where they have not, the
/// wider one takes what lies in it, so that the counts stay exact.
pub fn add(a: &[(u64, u64, u64)], b: &[(u64, u64, u64)]) -> Histogram {
    let mut sums: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for &(from, to, count) in a.iter().chain(b) {
        let sum = sums.entry((from, to)).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut merged = Histogram::new();
    for ((from, to), count) in sums {
        match merged.last_mut() {
            Some(last) if from < last.1 => {
                last.1 = last.1.max(to);
                last.2 = last.2.saturating_add(count);
            }
            _ => merged.push((from, to, count)),
        }
    }
    merged
}

/// How many are counted.
pub fn count(buckets: &[(u64, u64, u64)]) -> u64 {
    buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.2))
}

fn leb128(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_leb128(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn histograms() -> impl Strategy<Value = Histogram> {
        vec((0u64..1 << 40, 1u64..1 << 40, any::<u64>()), 0..20).prop_map(|parts| {
            let mut end = 0;
            let place = |(gap, width, count)| {
                let from = end + gap;
                end = from + width;
                (from, end, count)
            };
            parts.into_iter().map(place).collect()
        })
    }

    proptest! {
        #[test]
        fn histograms_are_read_back(histogram in histograms()) {
            prop_assert_eq!(decode(&encode(&histogram).unwrap()).unwrap(), histogram);
        }

        #[test]
        fn any_bytes_are_a_histogram_or_damage(bytes: Vec<u8>) {
            if let Ok(histogram) = decode(&bytes) {
                encode(&histogram).unwrap();
            }
        }

        #[test]
        fn sums_can_be_written_and_count_all(a in histograms(), b in histograms()) {
            let sum = add(&a, &b);
            encode(&sum).unwrap();
            if let Some(total) = a.iter().chain(&b).try_fold(0u64, |sum, bucket| sum.checked_add(bucket.2)) {
                prop_assert_eq!(count(&sum), total);
            }
        }
    }

    #[test]
    fn buckets_of_the_same_bounds_add_up() {
        assert_eq!(add(&[(0, 1, 5), (4, 8, 1)], &[(2, 4, 7), (4, 8, 2)]), [(0, 1, 5), (2, 4, 7), (4, 8, 3)]);
        assert_eq!(encode(&[(4, 8, 1), (2, 3, 1)]), None);
    }
}
