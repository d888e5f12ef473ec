//! What other programs make of the profiler's output: `go tool pprof`, inferno, speedscope, a browser, Prometheus,
//! VictoriaMetrics, systemd.
//!
//! They are not needed to build or to use the profiler: `cargo xtask setup --tests` installs them. Where one is not to
//! be had, its tests can be listed in `skips.txt`.

#![expect(clippy::unwrap_used, reason = "these are tests, their helper functions too")]

mod browser;
mod folded;
mod machine;
mod metrics;
mod pprof;
mod prometheus;
mod speedscope;
mod systemd;
mod tools;
mod unit;
