//! A configuration file of any text is read or refused with its line; what is read is printed and read back to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::daemon::config::Config;

fuzz_target!(|text: &str| {
    match Config::from_toml(text) {
        Ok(config) => assert_eq!(Config::from_toml(&config.to_toml()).ok(), Some(config)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
