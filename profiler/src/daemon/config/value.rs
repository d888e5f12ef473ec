//! Values of settings: what is allowed, how it is read from text (environment, flags) and from TOML, how it is written.

use std::{fmt::Write as _, time::Duration};

use toml::de::DeValue;

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number in the range, ends included.
    Number {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// A share of the machine's CPUs, percent.
    Percent {
        /// Smallest.
        least: f64,
        /// Largest.
        most: f64,
    },
    /// `true` or `false`.
    Switch,
    /// A time with its unit: `1ms`, `10s`, `7d`.
    Time {
        /// Shortest.
        least: Duration,
        /// Longest.
        most: Duration,
    },
    /// An amount of memory or disk with its unit: `150MB`, `2GiB`.
    Bytes {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// An absolute path.
    Path,
    /// An absolute path, or empty: none.
    OptionalPath,
    /// `IP:PORT`, `unix:/PATH`, or `off`.
    Listen,
}

/// A value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Number`] and [`Kind::Bytes`].
    Number(u64),
    /// Of [`Kind::Percent`].
    Percent(f64),
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Time`].
    Time(Duration),
    /// Of the paths and [`Kind::Listen`].
    Text(String),
}

/// Longest text of a value, bytes; paths are at most this long on Linux.
const MAX_TEXT: usize = 4096;

const TIMES: [(&str, u64); 8] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Kind {
    /// What is allowed, in words.
    pub fn allowed(self) -> String {
        match self {
            Self::Number { least, most } => format!("a whole number from {least} to {most}"),
            Self::Percent { least, most } => format!("a number from {least} to {most} (percent)"),
            Self::Switch => "true or false".to_owned(),
            Self::Time { least, most } => {
                format!("a time from \"{}\" to \"{}\" (ns, us, ms, s, m, h, d, w)", time(least), time(most))
            }
            Self::Bytes { least, most } => {
                format!(
                    "a size from \"{}\" to \"{}\" (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
                    size(least),
                    size(most)
                )
            }
            Self::Path => "an absolute path".to_owned(),
            Self::OptionalPath => "an absolute path, or \"\" for none".to_owned(),
            Self::Listen => "\"IP:PORT\", \"unix:/PATH\" or \"off\"".to_owned(),
        }
    }

    /// The value that a text of the environment or of the command line means. `None`: not allowed.
    pub fn parse(self, text: &str) -> Option<Value> {
        if text.len() > MAX_TEXT || text.contains('\0') {
            return None;
        }
        let value = match self {
            Self::Number { .. } => Value::Number(text.parse().ok()?),
            Self::Percent { .. } => Value::Percent(text.parse().ok()?),
            Self::Switch => Value::Switch(text.parse().ok()?),
            Self::Time { .. } => Value::Time(Duration::from_nanos(scaled(text, &TIMES)?)),
            Self::Bytes { .. } => Value::Number(scaled(text, &SIZES)?),
            Self::Path | Self::OptionalPath | Self::Listen => Value::Text(text.to_owned()),
        };
        self.allows(&value).then_some(value)
    }

    /// The value that a value of the file means. `None`: not allowed, or of another type.
    pub fn from_toml(self, value: &DeValue<'_>) -> Option<Value> {
        match (self, value) {
            (Self::Number { .. }, DeValue::Integer(number)) if number.radix() == 10 => {
                self.parse(number.as_str())
            }
            (Self::Percent { .. }, DeValue::Integer(number)) if number.radix() == 10 => {
                self.parse(number.as_str())
            }
            (Self::Percent { .. }, DeValue::Float(number)) => self.parse(number.as_str()),
            (Self::Switch, DeValue::Boolean(on)) => Some(Value::Switch(*on)),
            (
                Self::Time { .. } | Self::Bytes { .. } | Self::Path | Self::OptionalPath | Self::Listen,
                DeValue::String(text),
            ) => self.parse(text),
            _ => None,
        }
    }

    fn allows(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number { least, most } | Self::Bytes { least, most }, Value::Number(number)) => {
                (least..=most).contains(number)
            }
            (Self::Percent { least, most }, Value::Percent(number)) => (least..=most).contains(number),
            (Self::Switch, Value::Switch(_)) => true,
            (Self::Time { least, most }, Value::Time(time)) => (least..=most).contains(time),
            (Self::Path, Value::Text(path)) => path.starts_with('/'),
            (Self::OptionalPath, Value::Text(path)) => path.is_empty() || path.starts_with('/'),
            (Self::Listen, Value::Text(text)) => super::Listen::parse(text).is_some(),
            _ => false,
        }
    }

    /// The value as TOML.
    pub fn to_toml(self, value: &Value) -> String {
        match value {
            Value::Number(number) if matches!(self, Self::Bytes { .. }) => quoted(&size(*number)),
            Value::Number(number) => number.to_string(),
            // With a point, so that it is a float of TOML.
            Value::Percent(number) => format!("{number:?}"),
            Value::Switch(on) => on.to_string(),
            Value::Time(duration) => quoted(&time(*duration)),
            Value::Text(text) => quoted(text),
        }
    }
}

/// A number, with a fraction or without, and a unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*scale);
    }
    // `1.5h`; a sign or an exponent was cut off above.
    let number: f64 = number.parse().ok()?;
    let product = number * *scale as f64;
    (product < 9e18).then_some(product.round() as u64)
}

/// The amount in the largest unit that it is whole in.
fn whole(amount: u64, units: &[(&str, u64)]) -> Option<String> {
    let fits = |(_, scale): &&(&str, u64)| amount >= *scale && amount.is_multiple_of(*scale);
    let (name, scale) = units.iter().filter(fits).max_by_key(|(_, scale)| *scale)?;
    Some(format!("{}{name}", amount / scale))
}

fn time(duration: Duration) -> String {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    whole(nanoseconds, &TIMES).unwrap_or_else(|| "0s".to_owned())
}

fn size(bytes: u64) -> String {
    whole(bytes, &SIZES).unwrap_or_else(|| "0B".to_owned())
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Writing to a string does not fail.
            c if c.is_control() => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY_TIME: Kind = Kind::Time { least: Duration::ZERO, most: Duration::MAX };
    const ANY_SIZE: Kind = Kind::Bytes { least: 0, most: u64::MAX };

    #[test]
    fn times_and_sizes_have_units() {
        for (text, ns) in [
            ("10s", 10_000_000_000),
            ("1ms", 1_000_000),
            ("7d", 604_800_000_000_000),
            ("1.5h", 5_400_000_000_000),
        ] {
            assert_eq!(ANY_TIME.parse(text), Some(Value::Time(Duration::from_nanos(ns))), "{text}");
        }
        for (text, bytes) in [("150MB", 150_000_000), ("2 GiB", 2 << 30), ("0.5kB", 500)] {
            assert_eq!(ANY_SIZE.parse(text), Some(Value::Number(bytes)), "{text}");
        }
        for text in ["10", "s", "-1s", "1e3s", "1.2.3s", "nans", "infs", "99999999999w", "1 fortnight", ""] {
            assert_eq!(ANY_TIME.parse(text), None, "{text}");
        }
    }

    #[test]
    fn ranges_include_their_ends() {
        let kind = Kind::Number { least: 1, most: 127 };
        assert!(kind.parse("1").is_some() && kind.parse("127").is_some());
        assert!(kind.parse("0").is_none() && kind.parse("128").is_none());
        let kind = Kind::Percent { least: 0.1, most: 100.0 };
        assert!(kind.parse("NaN").is_none() && kind.parse("inf").is_none() && kind.parse("100").is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ns in any::<u64>(), bytes in any::<u64>(), path in "/[^\0]{0,40}") {
            let cases = [
                (ANY_TIME, Value::Time(Duration::from_nanos(ns))),
                (ANY_SIZE, Value::Number(bytes)),
                (Kind::Number { least: 0, most: u64::MAX }, Value::Number(bytes >> 1)),
                (Kind::Path, Value::Text(path)),
            ];
            for (kind, value) in cases {
                let text = format!("x = {}\n", kind.to_toml(&value));
                let table = toml::de::DeTable::parse(&text).unwrap();
                let read = kind.from_toml(table.get_ref().get("x").unwrap().get_ref());
                prop_assert_eq!(read, Some(value), "{}", text);
            }
        }
    }
}
