//! Configurations from their sources, and what a reload changes.

use std::{fmt, fs::File, io, io::Read as _, ops::Range, path::PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config,
    settings::{Applies, PREFIX, SETTINGS, Setting, setting},
    value::Value,
};
use crate::model::name::clean;

/// Largest file, bytes: some hundred times what it needs.
const MAX_FILE: u64 = 256 << 10;

/// What a configuration is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables, name and value; those that are no settings are passed by.
    pub environment: Vec<(String, String)>,
    /// Flags: name of the setting (`store.max_age`) and text.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The process's environment, with that file and those flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
        let environment = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self { file, environment, flags }
    }
}

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Something in it is wrong.
    #[error("{place}: {message}")]
    Wrong {
        /// File and line, environment variable or flag.
        place: Place,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// HTTP for other hosts without a token.
    #[error("http.listen = \"{listen}\" can be reached from other hosts, which needs a token")]
    NoToken {
        /// The address.
        listen: String,
    },
}

/// Where something wrong is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, from 1.
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// A setting that is another one after a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `store.max_age`
    pub setting: String,
    /// As TOML.
    pub old: String,
    /// As TOML.
    pub new: String,
}

/// What a reload changes.
#[derive(Debug)]
pub struct Changes {
    /// The configuration to go on with: the new values of what can change, the old ones of what needs a restart.
    pub config: Config,
    /// What takes effect.
    pub applied: Vec<Change>,
    /// What takes effect only after a restart.
    pub pending: Vec<Change>,
}

impl Config {
    /// The configuration that the sources say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let text = match &sources.file {
            Some(path) => read(path).map_err(|cause| ConfigError::Read { path: path.clone(), cause })?,
            None => String::new(),
        };
        let mut config = Self { sources, ..Self::default() };
        config.apply_file(&text)?;
        config.apply_environment()?;
        config.apply_flags()?;
        if config.http.listen.beyond_loopback() && config.http.token_file.is_none() {
            return Err(ConfigError::NoToken { listen: config.http.listen.to_string() });
        }
        Ok(config)
    }

    /// The configuration that a file's text says, of nothing else.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_file(text)?;
        Ok(config)
    }

    /// The sources read again, and what that changes; `self` stays what it is.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn reload(&self) -> Result<Changes, ConfigError> {
        let new = Self::load(self.sources.clone())?;
        let mut changes = Changes { config: self.clone(), applied: Vec::new(), pending: Vec::new() };
        for setting in SETTINGS {
            let (old, new) = ((setting.get)(self), (setting.get)(&new));
            if old == new {
                continue;
            }
            let change = Change {
                setting: setting.name(),
                old: setting.kind.to_toml(&old),
                new: setting.kind.to_toml(&new),
            };
            match setting.applies {
                Applies::Reload => {
                    (setting.set)(&mut changes.config, new);
                    changes.applied.push(change);
                }
                Applies::Restart => changes.pending.push(change),
            }
        }
        Ok(changes)
    }

    fn apply_file(&mut self, text: &str) -> Result<(), ConfigError> {
        let path = self.sources.file.clone().unwrap_or_default();
        let wrong = |span: Range<usize>, message: String| {
            let line = 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
            ConfigError::Wrong { place: Place::Line { path: path.clone(), line }, message }
        };
        let root = DeTable::parse(text)
            .map_err(|error| wrong(error.span().unwrap_or_default(), clean(error.message().as_bytes())))?;
        for (section, table) in root.get_ref() {
            let name = section.get_ref().as_ref();
            if !SETTINGS.iter().any(|setting| setting.section == name) {
                return Err(wrong(section.span(), unknown(name, "", sections())));
            }
            let DeValue::Table(table) = table.get_ref() else {
                return Err(wrong(section.span(), format!("`{name}` is a section: [{name}]")));
            };
            for (key, value) in table {
                let (setting, value) = in_file(name, key, value).map_err(|(span, text)| wrong(span, text))?;
                (setting.set)(self, value);
            }
        }
        Ok(())
    }

    fn apply_environment(&mut self) -> Result<(), ConfigError> {
        for (name, text) in self.sources.environment.clone() {
            let place = || Place::Variable(clean(name.as_bytes()));
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == name) {
                self.apply_text(setting, &text, place)?;
                continue;
            }
            // Other programs of ours have variables too; a section's name is a setting's alone.
            let section = sections().find(|section| {
                let rest =
                    name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(&section.to_uppercase()));
                rest.is_some_and(|rest| rest.starts_with('_'))
            });
            if let Some(section) = section {
                let known = SETTINGS.iter().filter(|s| s.section == section).map(Setting::variable);
                let message = unknown(&name, "", known);
                return Err(ConfigError::Wrong { place: place(), message });
            }
        }
        Ok(())
    }

    fn apply_flags(&mut self) -> Result<(), ConfigError> {
        for (name, text) in self.sources.flags.clone() {
            let Some(setting) = setting(&name) else {
                let message = unknown(&name, "", SETTINGS.iter().map(Setting::name));
                return Err(ConfigError::Wrong { place: Place::Flag(clean(name.as_bytes())), message });
            };
            self.apply_text(setting, &text, || Place::Flag(setting.flag()))?;
        }
        Ok(())
    }

    fn apply_text(
        &mut self,
        setting: &Setting,
        text: &str,
        place: impl Fn() -> Place,
    ) -> Result<(), ConfigError> {
        let Some(value) = setting.kind.parse(text) else {
            let message = not_allowed(setting, &clean(text.as_bytes()));
            return Err(ConfigError::Wrong { place: place(), message });
        };
        (setting.set)(self, value);
        Ok(())
    }
}

/// A line of the file: its setting and value, or where and why it is wrong.
fn in_file(
    section: &str,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(&'static Setting, Value), (Range<usize>, String)> {
    let name = key.get_ref().as_ref();
    let Some(setting) = SETTINGS.iter().find(|s| s.section == section && s.key == name) else {
        let known = SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.key);
        return Err((key.span(), unknown(name, &format!(" in [{section}]"), known)));
    };
    match setting.kind.from_toml(value.get_ref()) {
        Some(value) => Ok((setting, value)),
        None => Err((value.span(), not_allowed(setting, &shown(value.get_ref())))),
    }
}

/// A value of the file in a message.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", clean(text.as_bytes())),
        DeValue::Integer(number) => clean(number.as_str().as_bytes()),
        DeValue::Float(number) => clean(number.as_str().as_bytes()),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn not_allowed(setting: &Setting, text: &str) -> String {
    format!("{} is {text}, but must be {}", setting.name(), setting.kind.allowed())
}

fn unknown(name: &str, place: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let known: Vec<String> = known.map(|name| name.as_ref().to_owned()).collect();
    format!("there is no `{}`{place}; there are {}", clean(name.as_bytes()), known.join(", "))
}

fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    SETTINGS.iter().map(|setting| setting.section).filter(move |section| {
        let first = *section != last;
        last = section;
        first
    })
}

fn read(path: &std::path::Path) -> io::Result<String> {
    let mut text = String::new();
    let size = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match size as u64 > MAX_FILE {
        true => Err(io::Error::other(format!("is larger than {MAX_FILE} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn with_file(text: &str) -> (tempfile::NamedTempFile, Sources) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        (file, sources)
    }

    fn error(text: &str) -> String {
        let (file, sources) = with_file(text);
        let message = Config::load(sources).unwrap_err().to_string();
        message.replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn flags_go_before_environment_before_file_before_defaults() {
        let (_file, mut sources) = with_file(
            "[window]\nmax_series = 100\nlength = \"20s\"\n[sampling]\nfrequency_hz = 49\nstack_depth = 64\n",
        );
        sources.environment = vec![
            ("PROFILER_SAMPLING_FREQUENCY_HZ".into(), "99".into()),
            ("PROFILER_WINDOW_MAX_SERIES".into(), "200".into()),
            ("PROFILER_BIN".into(), "/x".into()),
        ];
        sources.flags = vec![("window.max_series".into(), "300".into())];
        let config = Config::load(sources).unwrap();
        assert_eq!(config.window.max_series, 300);
        assert_eq!(config.sampling.frequency_hz, 99);
        assert_eq!(config.window.length, Duration::from_secs(20));
        assert_eq!(config.sampling.stack_depth, 64);
        assert_eq!(config.budget, Config::default().budget);
    }

    #[test]
    fn what_is_wrong_in_the_file_has_its_line_and_what_is_allowed() {
        assert_eq!(
            error("[store]\n\nmax_aeg = \"1d\"\n"),
            "FILE:3: there is no `max_aeg` in [store]; there are directory, max_age, max_bytes"
        );
        assert!(
            error("[shop]\n").starts_with("FILE:1: there is no `shop`; there are store, window, sampling,")
        );
        assert_eq!(
            error("[sampling]\nfrequency_hz = -1\n"),
            "FILE:2: sampling.frequency_hz is -1, but must be a whole number from 0 to 10000"
        );
        assert!(
            error("[window]\nlength = 10\n")
                .starts_with("FILE:2: window.length is 10, but must be a time from")
        );
        assert!(error("window = 3\n").starts_with("FILE:1: `window` is a section"));
        assert!(error("[store]\nmax_age = \"1d\"\nmax_age = \"2d\"\n").starts_with("FILE:3: "), "twice");
        assert!(error("[store\n").starts_with("FILE:1: "));
        assert!(error("[store]\ndirectory = \"x\u{202e}\"\n").contains("\\u{202e}"), "cleaned");
        assert!(error(&"#".repeat(300 << 10)).ends_with("is larger than 262144 bytes"));
    }

    #[test]
    fn what_is_wrong_elsewhere_is_named() {
        let sources = Sources {
            environment: vec![("PROFILER_STORE_MAX_AGES".into(), "1d".into())],
            ..Sources::default()
        };
        let message = Config::load(sources).unwrap_err().to_string();
        assert!(
            message.contains("there is no `PROFILER_STORE_MAX_AGES`")
                && message.contains("PROFILER_STORE_MAX_AGE,")
        );
        let sources = Sources { flags: vec![("http.listen".into(), "here".into())], ..Sources::default() };
        let message = Config::load(sources).unwrap_err().to_string();
        assert!(
            message.starts_with("--http-listen: http.listen is here, but must be \"IP:PORT\""),
            "{message}"
        );
        let sources = Sources { file: Some("/no/such".into()), ..Sources::default() };
        assert_eq!(
            Config::load(sources).unwrap_err().to_string(),
            "/no/such: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn other_hosts_need_a_token() {
        let message = error("[http]\nlisten = \"0.0.0.0:7077\"\n");
        assert!(message.ends_with("which needs a token"), "{message}");
        let (_file, sources) = with_file("[http]\nlisten = \"0.0.0.0:7077\"\ntoken_file = \"/x\"\n");
        assert!(Config::load(sources).is_ok());
    }

    #[test]
    fn a_reload_tells_what_changes_and_keeps_the_old_one_if_it_is_wrong() {
        let (file, sources) = with_file("[window]\nmax_series = 100\n");
        let config = Config::load(sources).unwrap();
        std::fs::write(file.path(), "[window]\nmax_series = 50\nlength = \"30s\"\n").unwrap();
        let changes = config.reload().unwrap();
        let names = |changes: &[Change]| changes.iter().map(|c| c.setting.clone()).collect::<Vec<_>>();
        assert_eq!(names(&changes.applied), ["window.max_series"]);
        assert_eq!((changes.applied[0].old.as_str(), changes.applied[0].new.as_str()), ("100", "50"));
        assert_eq!(names(&changes.pending), ["window.length"]);
        assert_eq!(changes.config.window.max_series, 50);
        assert_eq!(changes.config.window.length, config.window.length);
        // Still pending the next time, and not applied twice.
        let again = changes.config.reload().unwrap();
        assert_eq!(
            (names(&again.applied), names(&again.pending)),
            (vec![], vec!["window.length".to_owned()])
        );
        std::fs::write(file.path(), "[window]\nmax_series = 1\n").unwrap();
        assert!(config.reload().is_err());
        assert_eq!(config.window.max_series, 100);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_configuration_or_an_error(text in "\\PC{0,200}", section in 0..SETTINGS.len(), value in "[ -~]{0,20}") {
            let setting = &SETTINGS[section];
            for text in [text, format!("[{}]\n{} = {value}\n", setting.section, setting.key)] {
                if let Err(error) = Config::from_toml(&text) {
                    prop_assert!(!error.to_string().chars().any(|c| c.is_control()));
                }
            }
        }
    }
}
