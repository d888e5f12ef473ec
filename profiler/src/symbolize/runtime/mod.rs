//! Language runtimes that keep the names of their code in their own memory: one folder each, which reads them from
//! outside while the process lives. Nothing is loaded into it, stopped or written, unless that is asked for ([`jvm::attach`]).

pub mod jvm;
pub mod memory;
