//! `profiler daemon`: the configuration read, printed or checked, and the daemon run with it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::OnceLock,
};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{
    args::LogLevel,
    error::{Exit, Failure, to_stdout},
    explain,
};
use crate::{
    daemon::{
        self,
        config::{Config, ConfigError, SETTINGS, Setting, Sources},
        http::Token,
        run::RunError,
    },
    store::StoreError,
};

/// Arguments of `daemon`.
#[derive(Args, Debug)]
#[command(
    after_help = "Flags go before environment variables (PROFILER_STORE_MAX_AGE), those before the file. SIGHUP reads \
    the file again; a file that is wrong then changes nothing (docs/daemon.md).\n\nExamples:\n  profiler daemon \
    --print-config > /etc/profiler/daemon.toml    a file to begin with\n  profiler daemon --config \
    /etc/profiler/daemon.toml            run\n  profiler daemon --config /etc/profiler/daemon.toml --check-config"
)]
pub struct DaemonArgs {
    /// Read the configuration from this file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the configuration that results, with what each setting is, and end.
    #[arg(long, conflicts_with = "check_config")]
    pub print_config: bool,

    /// Check the configuration, the token file too, and end.
    #[arg(long)]
    pub check_config: bool,

    #[command(flatten)]
    pub settings: SettingFlags,
}

/// The flags of the settings, by setting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingFlags(pub Vec<(String, String)>);

/// Names of the flags, which clap wants to keep.
fn flags() -> &'static [(String, String)] {
    static FLAGS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    FLAGS.get_or_init(|| SETTINGS.iter().map(|setting| (setting.name(), setting.flag())).collect())
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let defaults = Config::default();
        let argument = |((name, flag), setting): (&'static (String, String), &Setting)| {
            let default = setting.kind.to_toml(&(setting.get)(&defaults));
            let default = match default.trim_matches('"') {
                "" => String::new(),
                text => format!(" [default: {text}]"),
            };
            let help = format!("{}{default}", setting.help.trim_end_matches('.'));
            Arg::new(name.as_str())
                .long(flag.as_str())
                .value_name("VALUE")
                .allow_hyphen_values(true)
                .help_heading("Settings")
                .help(help)
        };
        command.args(flags().iter().zip(SETTINGS).map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = flags().iter().filter_map(|(name, _)| {
            let text = matches.get_one::<String>(name)?;
            Some((name.clone(), text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs `daemon`; gives the process's exit code.
///
/// # Errors
/// A configuration that is wrong, and what ends the daemon.
pub fn run_daemon(args: &DaemonArgs, log_level: LogLevel) -> Result<u8, Failure> {
    let log = log_level >= LogLevel::Debug;
    run(args, |config, token| daemon::run::run(config, token, log).map_err(|error| failed(&error)))
}

/// The same with any daemon; gives the process's exit code. `run`: the daemon itself, with its configuration and token.
///
/// # Errors
/// A configuration that is wrong, and what ends the daemon.
fn run(
    args: &DaemonArgs,
    run: impl FnOnce(Config, Option<Token>) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let sources = Sources::of_process(args.config.clone(), args.settings.0.clone());
    let config = Config::load(sources).map_err(|error| wrong(&error))?;
    if args.print_config {
        return print(&config.to_toml());
    }
    let token = config.http.token_file.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| Failure::new(Exit::Usage, error))?;
    if args.check_config {
        return print("the configuration is right\n");
    }
    run(config, token).map(|()| Exit::Success.code())
}

/// What ends the daemon, with what mends it.
fn failed(error: &RunError) -> Failure {
    match error {
        RunError::Session(error) => explain::session(error),
        RunError::Types(_) => {
            Failure::new(Exit::Unsupported, error).mend("see `profiler doctor`, line `btf`")
        }
        RunError::Store(StoreError::Denied { .. }) => {
            Failure::new(Exit::Failure, error).mend("another directory: --store-directory DIR")
        }
        RunError::Store(_) | RunError::Serving(_) | RunError::Io { .. } => Failure::new(Exit::Failure, error),
    }
}

fn wrong(error: &ConfigError) -> Failure {
    let failure = Failure::new(Exit::Usage, error);
    match error {
        ConfigError::NoToken { .. } => {
            failure.mend("add to the file, in [http]: token_file = \"/etc/profiler/token\"")
        }
        ConfigError::Read { .. } | ConfigError::Wrong { .. } => failure,
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    to_stdout(io::stdout().write_all(text.as_bytes())).map(|()| Exit::Success.code())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(words: &[&str]) -> DaemonArgs {
        let cli = Cli::try_parse_from(["profiler", "daemon"].iter().chain(words)).unwrap();
        let Command::Daemon(args) = cli.command else { panic!("not daemon") };
        args
    }

    fn config(words: &[&str]) -> Result<Config, Failure> {
        let mut result = None;
        run(&parse(words), |config, _| {
            result = Some(config);
            Ok(())
        })?;
        Ok(result.unwrap())
    }

    #[test]
    fn each_setting_has_a_flag() {
        let words: Vec<String> = SETTINGS
            .iter()
            .map(|setting| {
                let value = setting.kind.to_toml(&(setting.get)(&Config::default()));
                format!("--{}={}", setting.flag(), value.trim_matches('"'))
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let loaded = config(&words).unwrap();
        assert_eq!(loaded.sources.flags.len(), SETTINGS.len());
        assert_eq!(Config { sources: Sources::default(), ..loaded }, Config::default());
        assert_eq!(config(&["--sampling-frequency-hz", "0"]).unwrap().sampling.frequency_hz, 0);
    }

    #[test]
    fn what_is_wrong_is_told_with_what_mends_it() {
        let failure = config(&["--http-listen", "0.0.0.0:7077"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.ends_with("which needs a token"), "{}", failure.message);
        let mend = "add to the file, in [http]: token_file = \"/etc/profiler/token\"";
        assert_eq!(failure.mend.as_deref(), Some(mend));
        let failure = config(&["--http-token-file", "/no/such"]).unwrap_err();
        assert!(failure.message.starts_with("token file /no/such: "), "{}", failure.message);
        assert!(Cli::try_parse_from(["profiler", "daemon", "--store-max-ages", "1d"]).is_err());
    }
}
