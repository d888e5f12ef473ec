//! Names of the code of real programs, compiled and started by the tests: the programs say themselves where their
//! functions are.

mod corrupt;
mod files;
mod images;
mod inlined;
mod jit;
mod kernel;
mod modules;
mod program;
mod roots;
