//! Times as users write them: `2026-01-02T03:04:05Z`, `03:12` of today, `-15m` from now, seconds since 1970. Times of day are
//! UTC, as in all reports.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECOND_NS: i128 = 1_000_000_000;

const DAY_S: i128 = 86_400;

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// ns since the Unix epoch.
    At(u64),
    /// s since midnight, of today.
    Today(u32),
    /// So long ago.
    Ago(Duration),
}

impl When {
    /// Reads one.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ago = text.strip_prefix('-').and_then(|ago| duration(ago).ok()).map(Self::Ago);
        let found = ago
            .or_else(|| time_of_day(text).map(Self::Today))
            .or_else(|| rfc3339(text).or_else(|| seconds(text)).map(Self::At));
        found.ok_or_else(|| {
            "a time like 2026-01-02T03:04:05Z, 03:12, 03:12:30 (of today, UTC), -15m or seconds since 1970 is wanted"
                .to_owned()
        })
    }

    /// In ns since the Unix epoch, where it is `now_unix_ns`.
    pub fn unix_ns(self, now_unix_ns: u64) -> u64 {
        match self {
            Self::At(ns) => ns,
            Self::Today(seconds) => {
                let now = i128::from(now_unix_ns);
                let midnight = now - now % (DAY_S * SECOND_NS);
                u64::try_from(midnight + i128::from(seconds) * SECOND_NS).unwrap_or(u64::MAX)
            }
            Self::Ago(ago) => now_unix_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}

/// Now by the wall clock, ns since the Unix epoch; 0 before it.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A number with `s`, `m`, `h` or `d`; seconds without.
///
/// # Errors
/// What is wanted.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let with_unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, seconds) = with_unit.unwrap_or((text, 1));
    let number = number.parse::<u64>().ok().filter(|number| *number != 0);
    let seconds = number.and_then(|number| number.checked_mul(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| "a time like 30s, 15m, 2h or 1d is wanted".to_owned())
}

/// `FROM..TO`.
///
/// # Errors
/// What is wanted.
pub fn range(text: &str) -> Result<(When, When), String> {
    let (from, to) = text.split_once("..").ok_or("a range like 03:00..03:15 is wanted")?;
    Ok((When::parse(from)?, if to.is_empty() { When::Ago(Duration::ZERO) } else { When::parse(to)? }))
}

/// Seconds since 1970, as ns.
fn seconds(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(1_000_000_000)
}

/// Exactly so many digits.
fn digits(text: &str, count: usize, most: i128) -> Option<i128> {
    let all = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| all && *number <= most)
}

/// `HH:MM` or `HH:MM:SS`, as s since midnight.
fn time_of_day(text: &str) -> Option<u32> {
    let mut parts = text.split(':');
    let (hours, minutes) = (digits(parts.next()?, 2, 23)?, digits(parts.next()?, 2, 59)?);
    let seconds = parts.next().map_or(Some(0), |seconds| digits(seconds, 2, 59))?;
    if parts.next().is_some() {
        return None;
    }
    u32::try_from(hours * 3600 + minutes * 60 + seconds).ok()
}

/// `2026-01-02T03:04:05[.678][Z or +01:00]`, as ns since the Unix epoch; without a zone it is UTC.
fn rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let (year, month, day) =
        (digits(parts.next()?, 4, 9999)?, digits(parts.next()?, 2, 12)?, digits(parts.next()?, 2, 31)?);
    if parts.next().is_some() || month == 0 || day == 0 || day > days_of_month(year, month) {
        return None;
    }
    let (time, zone_s) = match time.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => match time.rfind(['+', '-']) {
            Some(at) => {
                let offset = i128::from(time_of_day(&time[at + 1..])?);
                (&time[..at], if time.as_bytes()[at] == b'+' { offset } else { -offset })
            }
            None => (time, 0),
        },
    };
    let (time, fraction_ns) = match time.split_once('.') {
        None => (time, 0),
        Some((time, fraction)) => {
            let scale = 10i128.checked_pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
            (time, digits(fraction, fraction.len(), i128::MAX)? * scale)
        }
    };
    let seconds = days(year, month, day) * DAY_S + i128::from(time_of_day(time)?) - zone_s;
    u64::try_from(seconds * SECOND_NS + fraction_ns).ok()
}

fn days_of_month(year: i128, month: i128) -> i128 {
    let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    next - days(year, month, 1)
}

/// Days from 1970-01-01, in years that begin in March, so that the leap day is their last one.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    // Months have 153 days in five, 719,468 days are from 0000-03-01 to 1970-01-01.
    year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::units;

    proptest! {
        #[test]
        fn times_are_those_that_reports_print(ms in 0u64..8_000_000_000_000) {
            let ns = ms * 1_000_000;
            prop_assert_eq!(When::parse(&units::rfc3339(ns)), Ok(When::At(ns)));
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text: String) {
            let _ = (When::parse(&text), range(&text), duration(&text));
        }
    }

    #[test]
    fn times_of_all_kinds() {
        let now = 1_767_323_045 * 1_000_000_000;
        let at = |text: &str| When::parse(text).map(|when| units::utc(when.unix_ns(now)));
        assert_eq!(units::utc(now), "2026-01-02 03:04:05.000 UTC");
        for (text, time) in [
            ("03:00", "2026-01-02 03:00:00.000 UTC"),
            ("00:00:59", "2026-01-02 00:00:59.000 UTC"),
            ("-15m", "2026-01-02 02:49:05.000 UTC"),
            ("-2h", "2026-01-02 01:04:05.000 UTC"),
            ("2024-02-29T23:59:59.5+01:00", "2024-02-29 22:59:59.500 UTC"),
            ("2026-01-01 10:00:00", "2026-01-01 10:00:00.000 UTC"),
            ("1767323045", "2026-01-02 03:04:05.000 UTC"),
        ] {
            assert_eq!(at(text), Ok(time.to_owned()), "{text}");
        }
        for bad in [
            "",
            "-",
            "3:00",
            "24:00",
            "03:60",
            "2023-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "-0m",
            "x",
            "1h",
            "+1767323045",
            "18446744073709551615",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!(range("03:00..03:15"), Ok((When::Today(10_800), When::Today(11_700))));
        assert_eq!(range("-1h.."), Ok((When::Ago(Duration::from_secs(3600)), When::Ago(Duration::ZERO))));
        assert!(range("03:00").is_err());
    }
}
