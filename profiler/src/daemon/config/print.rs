//! The configuration as a file, each setting with its comment, and the table of the documentation.

use super::{
    Config,
    settings::{Applies, SETTINGS},
};

impl Config {
    /// The configuration as TOML that reads back to the same.
    pub fn to_toml(&self) -> String {
        let mut out = String::from(
            "# Configuration of `profiler daemon`. What is left out has its default, which is the value shown here as \
             far as\n# nothing else was set. Flags and environment go before this file.\n",
        );
        let mut section = "";
        for setting in SETTINGS {
            if setting.section != section {
                section = setting.section;
                out.push_str(&format!("\n[{section}]\n"));
            }
            let restart = match setting.applies {
                Applies::Reload => "",
                Applies::Restart => " Changes need a restart.",
            };
            let value = setting.kind.to_toml(&(setting.get)(self));
            out.push_str(&format!(
                "# {}{restart}\n# {}\n{} = {value}\n",
                setting.help,
                sentence(&setting.kind.allowed()),
                setting.key
            ));
        }
        out
    }
}

/// The settings as a table of Markdown.
pub fn table() -> String {
    let mut out = String::from(
        "| setting | default | what it is | allowed | change takes effect |\n|---|---|---|---|---|\n",
    );
    let default = Config::default();
    for setting in SETTINGS {
        let effect = match setting.applies {
            Applies::Reload => "at a reload",
            Applies::Restart => "at a restart",
        };
        let value = setting.kind.to_toml(&(setting.get)(&default));
        let (name, help, allowed) = (setting.name(), setting.help, setting.kind.allowed());
        out.push_str(&format!("| `{name}` | `{value}` | {help} | {allowed} | {effect} |\n"));
    }
    out
}

/// With a capital at its start and a point at its end.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::daemon::config::Listen;

    fn read_back(config: &Config) -> Config {
        Config::from_toml(&config.to_toml()).unwrap()
    }

    #[test]
    fn what_is_printed_reads_back_to_the_same() {
        assert_eq!(read_back(&Config::default()), Config::default());
        let mut config = Config::default();
        config.store.directory = "/a \"b\"\\\n".into();
        config.store.max_age = Duration::from_secs(90);
        config.budget.cpu_percent = 0.25;
        config.budget.memory = 123_456_789;
        config.http.listen = Listen::Unix("/run/x".into());
        config.http.token_file = Some("/t".into());
        config.accounts.jvm = false;
        assert_eq!(read_back(&config), config);
    }

    #[test]
    fn the_example_is_what_is_printed() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/daemon.toml");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(example, Config::default().to_toml()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(example).unwrap(),
            Config::default().to_toml(),
            "BLESS=1 writes it"
        );
    }

    #[test]
    fn every_setting_is_printed_with_a_comment() {
        let text = Config::default().to_toml();
        for setting in SETTINGS {
            assert!(
                text.contains(&format!("# {}", setting.help))
                    && text.contains(&format!("\n{} = ", setting.key))
            );
        }
    }
}
