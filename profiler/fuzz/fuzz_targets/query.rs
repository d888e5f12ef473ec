//! Parameters of a request of any text are read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::daemon::http::{ROUTES, params::Params};

fuzz_target!(|text: &str| {
    let Ok(uri) = format!("/?{text}").parse() else { return };
    for route in ROUTES {
        let Ok(params) = Params::read(&uri, route.parameters) else { continue };
        _ = (params.pid(), params.number("seconds", 1..=60), params.pattern("process"));
        for prefix in ["", "base_"] {
            if let Ok(range) = params.range(prefix, 1_800_000_000_000_000_000) {
                assert!(range.from_unix_ns < range.to_unix_ns);
            }
        }
    }
});
