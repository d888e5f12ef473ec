//! profiler
pub mod model;
pub mod perf;
pub mod render;
pub mod symbolize;
