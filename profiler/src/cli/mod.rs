//! Command line.

pub mod report;
