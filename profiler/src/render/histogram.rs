//! A histogram of times as a picture in text.

use std::io::{self, Write};

use super::units::{count, seconds};

/// Characters of the longest bar.
const BAR: u64 = 40;

/// A bar for each power of two, from the first to the last that has something, behind so many blanks. `histogram`:
/// `(from, to, count)` of ns, ascending.
pub fn picture(histogram: &[(u64, u64, u64)], indent: usize, out: &mut dyn Write) -> io::Result<()> {
    let log = |ns: u64| ns.checked_ilog2().unwrap_or(0);
    let (Some(first), Some(last)) = (histogram.first(), histogram.last()) else { return Ok(()) };
    let of = |log_ns: u32| -> u64 {
        histogram.iter().filter(|bucket| log(bucket.0) == log_ns).map(|bucket| bucket.2).sum()
    };
    let most = (log(first.0)..=log(last.0)).map(of).max().unwrap_or(0).max(1);
    for log_ns in log(first.0)..=log(last.0) {
        let n = of(log_ns);
        // What is there is seen, however little.
        let bar = "#".repeat((n.saturating_mul(BAR) / most).max(u64::from(n != 0)) as usize);
        let from = if log_ns == 0 { 0 } else { 1 << log_ns };
        writeln!(
            out,
            "{:>indent$} {:>9} .. {:<9} {:>12} |{bar:<40}|",
            "",
            seconds(from),
            seconds(2 << log_ns),
            count(n)
        )?;
    }
    Ok(())
}
