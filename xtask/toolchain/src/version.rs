//! Version numbers of compilers and linkers.

use std::fmt;

/// Major, minor and patch number. Suffixes such as `-nightly` are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// A version of these three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the numbers at the start of `text` (`1.97.0-nightly`, `1.96.0+dfsg1`, `22.1`); a missing patch number is 0.
    pub fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut parts = text[..end].split('.');
        let mut number = || parts.next().map(str::parse::<u32>);
        let (major, minor) = (number()?.ok()?, number()?.ok()?);
        let patch = number().map_or(Some(0), Result::ok)?;
        Some(Self::new(major, minor, patch))
    }

    /// The first of the three numbers.
    pub const fn major(self) -> u32 {
        self.major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_tools_and_packages_write_them() {
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version::new(1, 97, 0)));
        assert_eq!(Version::parse("1.96.0+dfsg1-1~deb12u2"), Some(Version::new(1, 96, 0)));
        assert_eq!(Version::parse("22.1"), Some(Version::new(22, 1, 0)));
        assert_eq!(Version::parse("0.13.0\n"), Some(Version::new(0, 13, 0)));
        for bad in ["", "22", "rustc", "1..2", "99999999999.1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn order_is_by_number_not_by_text() {
        assert!(Version::parse("0.9.15") < Version::parse("0.13.0"));
    }
}
