//! profiler
pub mod cli;
pub mod model;
pub mod render;
