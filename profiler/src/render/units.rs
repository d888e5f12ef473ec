//! Numbers as people read them. The only place where values are scaled.

use crate::model::{SampleType, Unit};

/// `12,345,678`.
pub fn count(n: impl Into<i128>) -> String {
    let n: i128 = n.into();
    let digits = n.unsigned_abs().to_string();
    let mut out = if n < 0 { "-".to_owned() } else { String::new() };
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time with three digits or more: `812 ns`, `4.56 us`, `30.0 s`.
pub fn seconds(ns: u64) -> String {
    let scaled = |divisor: f64, unit: &str| {
        let value = ns as f64 / divisor;
        let decimals = if value < 9.995 {
            2
        } else if value < 99.95 {
            1
        } else {
            0
        };
        format!("{value:.decimals$} {unit}")
    };
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => scaled(1e3, "us"),
        1_000_000..1_000_000_000 => scaled(1e6, "ms"),
        _ => scaled(1e9, "s"),
    }
}

/// Bytes: `512 B`, `23.1 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A value of a sample type as a table shows it: counts as they are, times in ms, bytes in KiB.
pub fn value(value: i64, unit: Unit) -> String {
    match unit {
        Unit::Count => value.to_string(),
        Unit::Nanoseconds => format!("{:.1}", value as f64 / 1e6),
        Unit::Bytes => format!("{:.1}", value as f64 / 1024.0),
    }
}

/// A value of a sample type in running text: `1,000 samples`, `4.70 s cpu`.
pub fn prose(value: i64, sample_type: &SampleType) -> String {
    let name = &sample_type.name;
    let sign = if value < 0 { "-" } else { "" };
    match sample_type.unit {
        Unit::Count => format!("{} {name}", count(value)),
        Unit::Nanoseconds => format!("{sign}{} {name}", seconds(value.unsigned_abs())),
        Unit::Bytes => format!("{sign}{} {name}", bytes(value.unsigned_abs())),
    }
}

/// A share in percent with two decimals; of nothing it is 0.
pub fn percent(part: i64, total: i64) -> f64 {
    if total == 0 { 0.0 } else { part as f64 * 100.0 / total as f64 }
}

/// `2026-01-02 03:04:05.678 UTC`, from ns since the Unix epoch.
pub fn utc(unix_ns: u64) -> String {
    let (date, time) = date_time(unix_ns);
    format!("{date} {time} UTC")
}

/// `2026-01-02T03:04:05.678Z` (RFC 3339).
pub fn rfc3339(unix_ns: u64) -> String {
    let (date, time) = date_time(unix_ns);
    format!("{date}T{time}Z")
}

fn date_time(unix_ns: u64) -> (String, String) {
    let (ms, days) = (unix_ns / 1_000_000 % 86_400_000, unix_ns / 86_400_000_000_000);
    let (year, month, day) = civil(days);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{h:02}:{m:02}:{s:02}.{:03}", ms % 1000))
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01: years are counted off in their cycles of
/// 400, 100, 4 and 1, with years starting in March so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    // 719,468 days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let century = (day / 36_524).min(3);
    let day = day - century * 36_524;
    let (quad, day) = (day / 1_461, day % 1_461);
    let year = (day / 365).min(3);
    let mut day = day - year * 365;
    let mut month = 2;
    for length in [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let year = era * 400 + century * 100 + quad * 4 + year + month / 12;
    (year, month % 12 + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        assert_eq!(
            [count(0), count(999), count(1000), count(-1_234_567)],
            ["0", "999", "1,000", "-1,234,567"]
        );
        assert_eq!(
            [seconds(812), seconds(4_560), seconds(30_000_000_000), seconds(1_234_000_000_000)],
            ["812 ns", "4.56 us", "30.0 s", "1234 s"]
        );
        assert_eq!([bytes(1023), bytes(24_222_106), bytes(u64::MAX)], ["1023 B", "23.1 MiB", "16.0 EiB"]);
        assert_eq!(percent(1, 0), 0.0);
        assert_eq!(prose(1000, &SampleType::new("samples", Unit::Count)), "1,000 samples");
        assert_eq!(prose(-4_700_000_000, &SampleType::new("cpu", Unit::Nanoseconds)), "-4.70 s cpu");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(951_782_400_000_000_000), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(utc(1_709_251_199_999_000_000), "2024-02-29 23:59:59.999 UTC");
        assert_eq!(utc(1_709_251_200_000_000_000), "2024-03-01 00:00:00.000 UTC");
        assert_eq!(rfc3339(4_102_444_800_000_000_000), "2100-01-01T00:00:00.000Z");
        assert_eq!(utc(u64::MAX), "2554-07-21 23:34:33.709 UTC");
    }
}
