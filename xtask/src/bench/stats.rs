//! Medians of repeated measurements.

/// The median; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The largest; `None` of nothing.
pub fn largest(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// How much slower each run was than the mean of the runs without a profiler before and after it (0.01: 1 %): what
/// changes slowly on the machine is in both. Rates: more is faster.
pub fn slowdown(before: f64, with: f64, after: f64) -> f64 {
    (before + after) / 2.0 / with - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(largest(&[1.0, 3.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_slowdown_is_that_against_the_neighbours() {
        // The machine becomes faster meanwhile.
        assert_eq!(slowdown(100.0, 100.0, 200.0), 0.5);
        assert_eq!(slowdown(100.0, 150.0, 200.0), 0.0);
    }
}
