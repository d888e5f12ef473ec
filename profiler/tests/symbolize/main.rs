//! Names of the code of real programs, compiled and started by the tests: the programs say themselves where their
//! functions are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod corrupt;
mod files;
mod images;
mod inlined;
mod jit;
mod kernel;
mod modules;
mod program;
mod roots;
