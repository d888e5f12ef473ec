//! Shared parts of the tests: known-answer workloads, running the real binary, reading what it recorded, skipping.
//!
//! A kernel test builds a program whose answer is known ([`workload`]), runs the profiler's release binary on it
//! ([`record`]) and asks the recording ([`view`]) for exact counts, or for counts within a tolerance whose derivation
//! stands beside it. No test sleeps to be in time or asserts wall-clock time: programs say when they are ready, and
//! their length is CPU time. docs/testing.md tells how to run and to extend them.

pub mod accounts;
pub mod binary;
pub mod expect;
pub mod history;
pub mod jdk;
pub mod namespace;
mod other_tables;
pub mod record;
pub mod skip;
pub mod target;
pub mod view;

pub use workloads as workload;
