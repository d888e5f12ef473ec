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

/// The median of the ratios of pairs, less 1: how much `changed` is above `base`. Pairs were measured one after the
/// other, so what changes slowly on the machine is in both.
pub fn change(base: &[f64], changed: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = base.iter().zip(changed).map(|(base, changed)| changed / base - 1.0).collect();
    median(&ratios)
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
    fn a_change_is_that_of_pairs() {
        // The machine became twice as fast in between: both of the second pair have it.
        assert_eq!(change(&[100.0, 200.0], &[150.0, 300.0]), Some(0.5));
        assert_eq!(change(&[], &[1.0]), None);
    }
}
