//! profiler
pub mod bpf;
pub mod model;
pub mod perf;
pub mod probe;
pub mod render;
