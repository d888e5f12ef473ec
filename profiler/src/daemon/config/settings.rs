//! All settings in one table: the file, the environment, the flags, `--print-config` and docs/daemon.md are made from it.

use std::{path::PathBuf, time::Duration};

use profiler_common::stack::MAX_FRAMES;

use super::{
    Config, Listen,
    value::{Kind, Value},
};

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At a reload (SIGHUP), with the next window.
    Reload,
    /// Only when the daemon is started again.
    Restart,
}

/// A setting.
pub struct Setting {
    /// Table of the file.
    pub section: &'static str,
    /// Key in that table.
    pub key: &'static str,
    /// What it is, one line.
    pub help: &'static str,
    /// What is allowed.
    pub kind: Kind,
    /// When a change takes effect.
    pub applies: Applies,
    /// Reads it.
    pub get: fn(&Config) -> Value,
    /// Sets it; the value is of its kind.
    pub set: fn(&mut Config, Value),
}

impl Setting {
    /// `store.max_age`
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// `--store-max-age`, without the dashes at its start.
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.key).replace('_', "-")
    }

    /// `PROFILER_STORE_MAX_AGE`
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}_{}", self.section, self.key).to_uppercase()
    }
}

/// Start of the environment variables.
pub const PREFIX: &str = "PROFILER_";

/// Ten years.
const LONGEST: Duration = Duration::from_secs(3660 * 86_400);

/// A line of the table: the field of [`Config`] that it is, what the field's type takes from a value and gives as one.
macro_rules! setting {
    ($section:ident . $key:ident, $kind:expr, $applies:ident, $help:literal, $variant:ident($value:ident) => $to:expr, $field:ident => $from:expr) => {
        Setting {
            section: stringify!($section),
            key: stringify!($key),
            help: $help,
            kind: $kind,
            applies: Applies::$applies,
            get: |config| {
                let $field = &config.$section.$key;
                Value::$variant($from)
            },
            set: |config, value| {
                if let Value::$variant($value) = value {
                    config.$section.$key = $to;
                }
            },
        }
    };
    (number $section:ident . $key:ident, $least:expr, $most:expr, $applies:ident, $help:literal) => {
        setting!($section.$key, Kind::Number { least: $least, most: $most }, $applies, $help, Number(v) => v, f => *f)
    };
    (bytes $section:ident . $key:ident, $least:expr, $most:expr, $applies:ident, $help:literal) => {
        setting!($section.$key, Kind::Bytes { least: $least, most: $most }, $applies, $help, Number(v) => v, f => *f)
    };
    (time $section:ident . $key:ident, $least:expr, $most:expr, $applies:ident, $help:literal) => {
        setting!($section.$key, Kind::Time { least: $least, most: $most }, $applies, $help, Time(v) => v, f => *f)
    };
    (switch $section:ident . $key:ident, $applies:ident, $help:literal) => {
        setting!($section.$key, Kind::Switch, $applies, $help, Switch(v) => v, f => *f)
    };
    (path $section:ident . $key:ident, $applies:ident, $help:literal) => {
        setting!($section.$key, Kind::Path, $applies, $help, Text(v) => PathBuf::from(v), f => f.to_string_lossy().into_owned())
    };
}

/// All of them, by section.
pub const SETTINGS: &[Setting] = &[
    setting!(path store.directory, Restart, "Directory of the history; made if it is not there, mode 0700."),
    setting!(time store.max_age, Duration::from_secs(60), LONGEST, Reload, "Older windows are removed."),
    setting!(bytes store.max_bytes, 16 << 20, 1 << 50, Reload,
        "Size on disk above which the oldest windows are removed."),
    setting!(time window.length, Duration::from_secs(1), Duration::from_secs(600), Restart,
        "Length of a window: what happened in it is one entry of the history."),
    setting!(number window.max_series, 16, 100_000, Reload,
        "Processes that have numbers of their own in a window; the rest is exact in [other]."),
    setting!(number sampling.frequency_hz, 0, 10_000, Reload, "Samples per second and CPU of what runs; 0: none."),
    setting!(switch sampling.offcpu, Restart, "Stacks of what threads are blocked by."),
    setting!(time sampling.min_block, Duration::ZERO, Duration::from_secs(3600), Reload,
        "Shorter blocked times are counted without their stacks."),
    setting!(number sampling.stack_depth, 1, MAX_FRAMES as u64, Reload, "Most frames of a user stack."),
    setting!(switch accounts.syscalls, Restart, "Exact numbers and times of system calls."),
    setting!(switch accounts.network, Restart, "Exact numbers of sockets: bytes, connections, segments sent again."),
    setting!(switch accounts.jvm, Restart, "Collections, safepoints, compilations and heaps of JVMs."),
    setting!(budget.cpu_percent, Kind::Percent { least: 0.01, most: 100.0 }, Reload,
        "Own CPU time above which less is sampled, percent of all CPUs of the machine.", Percent(v) => v, f => *f),
    setting!(bytes budget.memory, 32 << 20, 1 << 40, Reload,
        "Own memory above which less is kept, kernel maps and unwind tables included."),
    setting!(http.listen, Kind::Listen, Restart, "Where HTTP is served; beyond loopback only with a token.",
        Text(v) => Listen::parse(&v).unwrap_or(Listen::Off), f => f.to_string()),
    setting!(http.token_file, Kind::OptionalPath, Restart,
        "File with the bearer token that HTTP asks for: its owner's alone (mode 0600).",
        Text(v) => (!v.is_empty()).then(|| PathBuf::from(v)),
        f => f.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()),
    setting!(path control.socket, Restart, "Socket of `profiler ctl`, mode 0600."),
    setting!(number metrics.max_series, 1, 10_000, Reload,
        "Commands and containers with numbers of their own on /metrics; the rest is exact in [other]."),
];

/// The setting of that name (`store.max_age`).
pub fn setting(name: &str) -> Option<&'static Setting> {
    let (section, key) = name.split_once('.')?;
    SETTINGS.iter().find(|setting| setting.section == section && setting.key == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_flags_and_variables_are_distinct_and_sections_are_together() {
        let names: BTreeSet<_> = SETTINGS.iter().map(Setting::name).collect();
        let flags: BTreeSet<_> = SETTINGS.iter().map(Setting::flag).collect();
        assert_eq!((names.len(), flags.len()), (SETTINGS.len(), SETTINGS.len()));
        let mut sections: Vec<_> = SETTINGS.iter().map(|setting| setting.section).collect();
        sections.dedup();
        assert_eq!(sections.len(), sections.iter().collect::<BTreeSet<_>>().len());
        let setting = setting("store.max_age").unwrap();
        assert_eq!(
            (setting.flag().as_str(), setting.variable().as_str()),
            ("store-max-age", "PROFILER_STORE_MAX_AGE")
        );
    }

    #[test]
    fn each_default_is_allowed_and_set_by_its_own_line_alone() {
        for setting in SETTINGS {
            let mut config = Config::default();
            let value = (setting.get)(&config);
            let text = setting.kind.to_toml(&value);
            (setting.set)(&mut config, value);
            assert_eq!(config, Config::default(), "{}", setting.name());
            let plain = text.trim_matches('"');
            assert!(setting.kind.parse(plain).is_some(), "{}: {text}", setting.name());
        }
    }
}
