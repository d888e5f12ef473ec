//! Points and spans of time in a query.

/// The span that is meant if nothing is said: 15 minutes, ns.
pub const DEFAULT_SPAN_NS: u64 = 900 * SECOND;

const SECOND: u64 = 1_000_000_000;

/// Seconds since 1970 with a fraction or without, or RFC 3339 (`2026-01-31T23:59:59.5Z`, `...+01:00`); ns since 1970.
pub fn point(text: &str) -> Option<u64> {
    if text.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return seconds(text);
    }
    date(text)
}

/// A number with a unit: `90s`, `15m`, `2h`, `7d`; ns, more than 0.
pub fn span(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let scale = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - unit.len_utf8()];
    let is_number = number.bytes().all(|c| c.is_ascii_digit());
    let span = number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(scale)?.checked_mul(SECOND)?;
    (span > 0).then_some(span)
}

/// Digits and at most one point.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(SECOND)?.checked_add(nanoseconds)
}

fn date(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |at: usize, count: usize| -> Option<i64> {
        let digits = text.get(at..at + count)?;
        digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let fits = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let fraction = match fraction {
        "" => 0,
        _ => {
            let digits = fraction.strip_prefix('.').filter(|digits| !digits.is_empty())?;
            seconds(&format!("0.{digits}"))?
        }
    };
    let whole =
        days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    u64::try_from(whole).ok()?.checked_mul(SECOND)?.checked_add(fraction)
}

/// `Z` or `+01:00`, seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u8>().ok())?.map(i64::from);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar: years begin in March, so that the leap day is their last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 306 days from March to December: months of 30.6 days, rounded.
    of_years + (306 * month + 5) / 10 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn points() {
        for (text, ns) in [
            ("0", 0),
            ("1700000000", 1_700_000_000 * SECOND),
            ("1700000000.25", 1_700_000_000 * SECOND + 250_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600 * SECOND),
            ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
            ("2023-11-14T23:13:20.5+01:00", 1_700_000_000 * SECOND + 500_000_000),
            ("2023-11-14 17:43:20-04:30", 1_700_000_000 * SECOND),
        ] {
            assert_eq!(point(text), Some(ns), "{text}");
        }
        for text in [
            "",
            ".",
            "1.2.3",
            "-1",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-11-14T22:13:20",
            "1969-12-31T23:59:59Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+1:00",
            "99999999999999999999",
            "now",
        ] {
            assert_eq!(point(text), None, "{text}");
        }
    }

    #[test]
    fn spans() {
        assert_eq!(span("15m"), Some(DEFAULT_SPAN_NS));
        assert_eq!(span("1w"), Some(604_800 * SECOND));
        for text in ["", "m", "0s", "-1s", "+1s", "1.5h", "5ü", "99999999999999w"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "\\PC{0,40}", date in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.Z+-]{0,20}") {
            _ = (point(&text), span(&text), point(&date));
        }

        #[test]
        fn days_follow_each_other(days in 0i64..200_000) {
            let mut year = 1970 + days / 366;
            while days_since_1970(year + 1, 1, 1) <= days {
                year += 1;
            }
            let month = (1..=12).rev().find(|month| days_since_1970(year, *month, 1) <= days).unwrap();
            let day = days - days_since_1970(year, month, 1) + 1;
            prop_assert!((1..=days_of(year, month)).contains(&day));
            prop_assert_eq!(point(&format!("{year:04}-{month:02}-{day:02}T00:00:00Z")), Some(days as u64 * 86_400 * SECOND));
        }
    }
}
