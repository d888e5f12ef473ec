//! The kernel: release, lockdown, boot parameters that limit a profiler.
//!
//! Sources: uname(2); /sys/kernel/security/lockdown (Documentation: kernel_lockdown(7)); /proc/cmdline.

use std::fmt;

use super::file;

/// A kernel version; compares as numbers (5.10 is newer than 5.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number, 0 if the release has none.
    pub patch: u32,
}

/// The oldest kernel that the eBPF programs support: ring buffers and CAP_BPF came with 5.8.
pub const FLOOR: Version = Version::new(5, 8, 0);

impl Version {
    /// That version.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the start of a release: `6.1.0-13-cloud-amd64` is 6.1.0. `None` if it does not begin with two numbers.
    pub fn parse(release: &str) -> Option<Self> {
        let mut parts = release.splitn(3, '.');
        let number = |text: &str| -> Option<u32> {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let major = number(parts.next()?)?;
        let minor = number(parts.next()?)?;
        Some(Self { major, minor, patch: parts.next().and_then(number).unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch != 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// What uname(2) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uname {
    /// Host name.
    pub host: String,
    /// Kernel release, `uname -r`.
    pub release: String,
    /// Machine, `uname -m`.
    pub machine: String,
}

impl Uname {
    /// The running kernel's.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |raw: &std::ffi::CStr| crate::model::name::clean(raw.to_bytes());
        Self { host: text(uname.nodename()), release: text(uname.release()), machine: text(uname.machine()) }
    }

    /// The release as numbers.
    pub fn version(&self) -> Option<Version> {
        Version::parse(&self.release)
    }
}

/// How far the kernel is locked against its own root user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// Nothing may change the kernel; eBPF tracing works.
    Integrity,
    /// Nothing may read kernel memory either: programs that call `bpf_probe_read_kernel` are refused.
    Confidentiality,
}

impl Lockdown {
    /// The state marked in `none [integrity] confidentiality`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split('[').nth(1)?.split(']').next()? {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The running kernel's. `None`: not told (built without lockdown, or securityfs is not mounted).
    pub fn read() -> Option<Self> {
        Self::parse(&file::read_text("/sys/kernel/security/lockdown", file::SMALL).ok()?)
    }

    /// The state's name in the kernel's file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// Boot parameters that change what a profiler can do. Others are not shown: a command line may hold secrets.
const RELEVANT: [&str; 8] = [
    "lockdown",
    "nokaslr",
    "cgroup_no_v1",
    "systemd.unified_cgroup_hierarchy",
    "lsm",
    "nopmu",
    "nohz_full",
    "isolcpus",
];

/// The parameters of a kernel command line that concern a profiler, as they were written.
pub fn relevant_boot_parameters(command_line: &str) -> Vec<String> {
    command_line
        .split_ascii_whitespace()
        .filter(|word| RELEVANT.contains(&word.split('=').next().unwrap_or_default()))
        .map(|word| crate::model::name::clean(word.as_bytes()))
        .collect()
}

/// [`relevant_boot_parameters`] of the running kernel.
pub fn boot_parameters() -> Vec<String> {
    file::read_text("/proc/cmdline", file::SMALL)
        .map(|text| relevant_boot_parameters(&text))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_of_real_releases() {
        for (release, expected) in [
            ("5.10.0-28-cloud-amd64", (5, 10, 0)),
            ("6.18.44-fc-v669", (6, 18, 44)),
            ("5.15.153.1-microsoft-standard-WSL2", (5, 15, 153)),
            ("6.9-rc1", (6, 9, 0)),
            ("4.18.0-553.el8_10.x86_64", (4, 18, 0)),
        ] {
            let (major, minor, patch) = expected;
            assert_eq!(Version::parse(release), Some(Version::new(major, minor, patch)), "{release}");
        }
        for bad in ["", "linux", "5", "x.1", ".1.2"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::new(5, 10, 0) > Version::new(5, 9, 16));
        assert!(Version::new(5, 8, 0) >= FLOOR && Version::new(5, 7, 19) < FLOOR);
        assert_eq!(Version::new(6, 1, 0).to_string(), "6.1");
        assert_eq!(Version::new(6, 1, 5).to_string(), "6.1.5");
    }

    #[test]
    fn lockdown_is_the_marked_word() {
        assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(Lockdown::parse("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(Lockdown::parse("none integrity [confidentiality]"), Some(Lockdown::Confidentiality));
        assert_eq!(Lockdown::parse("none integrity"), None);
        assert_eq!(Lockdown::parse("[other]"), None);
    }

    #[test]
    fn only_relevant_parameters_are_shown() {
        let line = "BOOT_IMAGE=/vmlinuz root=UUID=1 password=secret lockdown=integrity nokaslr quiet\n";
        assert_eq!(relevant_boot_parameters(line), ["lockdown=integrity", "nokaslr"]);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(Uname::read().version().is_some_and(|v| v > Version::new(3, 0, 0)));
    }

    proptest! {
        #[test]
        fn a_printed_version_reads_back(major: u32, minor: u32, patch: u32) {
            let version = Version::new(major, minor, patch);
            prop_assert_eq!(Version::parse(&version.to_string()), Some(version));
        }

        #[test]
        fn no_text_breaks_the_parsers(text: String) {
            let _ = (Version::parse(&text), Lockdown::parse(&text), relevant_boot_parameters(&text));
        }
    }
}
