//! profiler
pub mod cli;
pub mod host;
pub mod model;
pub mod render;
pub mod target;
