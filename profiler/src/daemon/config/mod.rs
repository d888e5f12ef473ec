//! Configuration of the daemon: flags before environment before file before defaults, all from one table ([`SETTINGS`]).
//!
//! A configuration that is wrong is not used, not even in part: [`Config::load`] and [`Config::reload`] are pure but for
//! reading the file, and say the line, the cause and what is allowed.

mod load;
mod print;
mod settings;
mod value;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use load::{Change, Changes, ConfigError, Sources};
pub use print::table;
pub use settings::{Applies, SETTINGS, Setting};
pub use value::{Kind, Value};

/// The configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The history on disk.
    pub store: Store,
    /// Windows of the history.
    pub window: Window,
    /// What is sampled.
    pub sampling: Sampling,
    /// What is counted exactly.
    pub accounts: Accounts,
    /// What the daemon itself may use.
    pub budget: Budget,
    /// HTTP.
    pub http: Http,
    /// Control by `profiler ctl`.
    pub control: Control,
    /// The page /metrics.
    pub metrics: Metrics,
    /// What it was made from, for [`Config::reload`].
    pub sources: Sources,
}

/// The history on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    /// Its directory.
    pub directory: PathBuf,
    /// Older windows are removed.
    pub max_age: Duration,
    /// Bytes on disk above which the oldest are removed.
    pub max_bytes: u64,
}

/// Windows of the history.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// How long one is.
    pub length: Duration,
    /// Most series in one.
    pub max_series: u64,
}

/// What is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Per second and CPU; 0: off.
    pub frequency_hz: u64,
    /// Blocked times by stack.
    pub offcpu: bool,
    /// Shorter ones have no stack.
    pub min_block: Duration,
    /// Most frames of a user stack.
    pub stack_depth: u64,
}

/// What is counted exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Accounts {
    /// System calls.
    pub syscalls: bool,
    /// Sockets.
    pub network: bool,
    /// JVMs.
    pub jvm: bool,
}

/// What the daemon itself may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// CPU time, percent of all CPUs.
    pub cpu_percent: f64,
    /// Bytes, the kernel's for it included.
    pub memory: u64,
}

/// HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Where it is served.
    pub listen: Listen,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
}

/// Control by `profiler ctl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Path of the socket.
    pub socket: PathBuf,
}

/// The page /metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Most series with labels of their own.
    pub max_series: u64,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket at that path.
    Unix(PathBuf),
    /// Nowhere.
    Off,
}

/// Longest path of a unix socket that the kernel takes (`sun_path`, with its NUL).
const MAX_SOCKET_PATH: usize = 107;

impl Listen {
    /// `IP:PORT`, `unix:/PATH`, `off`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return (path.starts_with('/') && path.len() <= MAX_SOCKET_PATH)
                .then(|| Self::Unix(Path::new(path).to_owned()));
        }
        text.parse().ok().map(Self::Tcp)
    }

    /// Whether other hosts can connect.
    pub fn beyond_loopback(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/profiler"),
            max_age: Duration::from_secs(7 * 86_400),
            max_bytes: 2 << 30,
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { length: Duration::from_secs(10), max_series: 500 }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        // 19 Hz: a prime, so that it does not keep step with what happens every 10 or 100 ms.
        Self { frequency_hz: 19, offcpu: true, min_block: Duration::from_millis(1), stack_depth: 127 }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { syscalls: true, network: true, jvm: true }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { cpu_percent: 1.0, memory: 150_000_000 }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 7077))), token_file: None }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/profiler/control.sock") }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { max_series: 200 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at() {
        for (text, beyond) in [
            ("127.0.0.1:7077", Some(false)),
            ("[::1]:0", Some(false)),
            ("[::ffff:127.0.0.1]:80", Some(false)),
            ("0.0.0.0:7077", Some(true)),
            ("[::]:7077", Some(true)),
            ("10.0.0.1:1", Some(true)),
            ("unix:/run/x", Some(false)),
            ("off", Some(false)),
            ("localhost:80", None),
            ("unix:x", None),
            ("127.0.0.1", None),
            ("", None),
        ] {
            let listen = Listen::parse(text);
            assert_eq!(listen.as_ref().map(Listen::beyond_loopback), beyond, "{text}");
            assert!(listen.is_none_or(|listen| listen.to_string() == text), "{text}");
        }
        assert_eq!(Listen::parse(&format!("unix:/{}", "x".repeat(107))), None);
    }
}
