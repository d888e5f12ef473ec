//! Histograms that add up over windows: in classic buckets and in native ones (see the head of [`super`]).

use std::collections::BTreeMap;

use crate::model::{Unit, sched::Histogram};

/// Native buckets of a power of two: 2^[`SCHEMA`].
const STEPS: usize = 1 << SCHEMA;

/// The native histograms' resolution: bounds are powers of 2^(2^-3).
pub const SCHEMA: i32 = 3;

/// Bounds within a power of two: 2^(i/8).
const FRACTIONS: [f64; STEPS] = [
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    std::f64::consts::SQRT_2,
    1.5422108254079407,
    1.681792830507429,
    1.8340080864093424,
];

/// Classic bounds: the largest values (included) of buckets, 2^n - 1, from 1 µs to 69 s of ns, each four times the one
/// before.
pub const BOUNDS: [u64; 14] = {
    let mut bounds = [0; 14];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = (1 << (10 + 2 * i)) - 1;
        i += 1;
    }
    bounds
};

/// A histogram over all windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Sum of the values.
    pub sum: u64,
    /// How many there are.
    pub count: u64,
    /// Of these, up to each of [`BOUNDS`] and more than the one before; the last: more than all.
    classic: [u64; BOUNDS.len() + 1],
    /// Of these, 0.
    pub zero: u64,
    /// Of these, in the native bucket of that number: more than 2^((i - 1)/8) and up to 2^(i/8) of the base unit.
    native: BTreeMap<i32, u64>,
}

impl Buckets {
    /// Adds what happened in a window.
    pub fn add(&mut self, sum: u64, histogram: &Histogram, unit: Unit) {
        self.sum = self.sum.saturating_add(sum);
        for &(from, to, count) in histogram {
            // The largest value of the bucket: it is in no higher bucket than that one.
            let largest = to.saturating_sub(1).max(from);
            self.count = self.count.saturating_add(count);
            let class = BOUNDS.partition_point(|bound| *bound < largest);
            self.classic[class] = self.classic[class].saturating_add(count);
            let place = match largest {
                0 => &mut self.zero,
                _ => {
                    self.native.entry(native_bucket(super::family::in_base_unit(largest, unit))).or_default()
                }
            };
            *place = place.saturating_add(count);
        }
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.saturating_add(other.sum);
        self.count = self.count.saturating_add(other.count);
        self.zero = self.zero.saturating_add(other.zero);
        for (mine, theirs) in self.classic.iter_mut().zip(&other.classic) {
            *mine = mine.saturating_add(*theirs);
        }
        for (bucket, count) in &other.native {
            let mine = self.native.entry(*bucket).or_default();
            *mine = mine.saturating_add(*count);
        }
    }

    /// For each of [`BOUNDS`], how many values are not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let sums = self.classic.iter().scan(0u64, |sum, count| {
            *sum = sum.saturating_add(*count);
            Some(*sum)
        });
        BOUNDS.into_iter().zip(sums)
    }

    /// Native buckets as the protobuf format has them: spans of buckets that follow each other, (distance from the end of
    /// the span before, length), and for each bucket the difference from the one before.
    pub fn spans(&self) -> (Vec<(i32, u32)>, Vec<i64>) {
        let (mut spans, mut deltas): (Vec<(i32, u32)>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut next, mut last) = (0, 0i64);
        for (&bucket, &count) in &self.native {
            match spans.last_mut() {
                Some((_, length)) if bucket == next => *length += 1,
                _ => spans.push((bucket - next, 1)),
            }
            next = bucket + 1;
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            deltas.push(count - last);
            last = count;
        }
        (spans, deltas)
    }
}

/// Upper bound of a native bucket.
fn upper_bound(bucket: i32) -> f64 {
    let steps = STEPS as i32;
    FRACTIONS[bucket.rem_euclid(steps) as usize] * f64::powi(2.0, bucket.div_euclid(steps))
}

/// The native bucket that a positive value is in.
fn native_bucket(value: f64) -> i32 {
    let mut bucket = (value.log2() * STEPS as f64).ceil() as i32;
    // The logarithm is rounded, the bounds decide.
    while upper_bound(bucket - 1) >= value {
        bucket -= 1;
    }
    while upper_bound(bucket) < value {
        bucket += 1;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use profiler_common::hist::{bounds, place};

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = BTreeMap::new();
        for &value in values {
            let (block, bucket) = place(value);
            *histogram.entry(bounds(block, bucket)).or_insert(0) += 1;
        }
        histogram.into_iter().map(|((from, to), count)| (from, to, count)).collect()
    }

    #[test]
    fn fractions_are_the_powers() {
        for (i, fraction) in FRACTIONS.iter().enumerate() {
            assert!((fraction - 2f64.powf(i as f64 / 8.0)).abs() <= f64::EPSILON, "{i}");
        }
    }

    #[test]
    fn bounds_of_native_buckets_belong_to_the_lower_one() {
        for bucket in -300..300 {
            let bound = upper_bound(bucket);
            assert_eq!(native_bucket(bound), bucket);
            assert_eq!(native_bucket(bound.next_up()), bucket + 1);
        }
    }

    #[test]
    fn spans_and_differences() {
        let mut buckets = Buckets::default();
        for (bucket, count) in [(-20, 3), (-19, 5), (-10, 1), (2, 4), (3, 4)] {
            buckets.native.insert(bucket, count);
        }
        assert_eq!(buckets.spans(), (vec![(-20, 2), (8, 1), (11, 2)], vec![3, 2, -4, 3, 0]));
        assert_eq!(Buckets::default().spans(), (vec![], vec![]));
    }

    proptest! {
        /// No value is shown below itself, none more than one of our buckets above, and classic bounds are exact.
        #[test]
        fn counts_stay_where_they_are(exponents in proptest::collection::vec((0u32..40, any::<u64>()), 1..50)) {
            let values: Vec<u64> = exponents.iter().map(|(e, r)| (1 << e) + r % (1 << e)).chain([0]).collect();
            let mut buckets = Buckets::default();
            buckets.add(values.iter().sum(), &of(&values), Unit::Nanoseconds);
            prop_assert_eq!(buckets.count, values.len() as u64);
            prop_assert_eq!(buckets.zero, 1);
            for (bound, count) in buckets.cumulative() {
                prop_assert_eq!(count, values.iter().filter(|value| **value <= bound).count() as u64);
            }
            for &value in values.iter().filter(|value| **value > 0) {
                let (mut alone, seconds) = (Buckets::default(), value as f64 / 1e9);
                alone.add(value, &of(&[value]), Unit::Nanoseconds);
                let bucket = *alone.native.keys().next().unwrap();
                let right = native_bucket(seconds);
                prop_assert!(bucket == right || bucket == right + 1, "{} {} {}", value, bucket, right);
                prop_assert!(upper_bound(bucket - 1) < seconds * 1.0625);
            }
            let total: u64 = buckets.native.values().sum();
            prop_assert_eq!(total + buckets.zero, buckets.count);
        }

        #[test]
        fn sums_of_two_are_the_sum_of_both(a in proptest::collection::vec(any::<u32>(), 0..30), b in proptest::collection::vec(any::<u32>(), 0..30)) {
            let wide = |values: &[u32]| values.iter().map(|v| u64::from(*v)).collect::<Vec<_>>();
            let (a, b) = (wide(&a), wide(&b));
            let make = |parts: &[&[u64]]| {
                let mut buckets = Buckets::default();
                for part in parts {
                    buckets.add(part.iter().sum(), &of(part), Unit::Nanoseconds);
                }
                buckets
            };
            let mut merged = make(&[&a]);
            merged.merge(&make(&[&b]));
            prop_assert_eq!(&merged, &make(&[&a, &b]));
            prop_assert_eq!(&merged, &make(&[&[a.clone(), b.clone()].concat()]));
        }
    }
}
