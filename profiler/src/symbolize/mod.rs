//! wip
pub mod debug_file;
pub mod demangle;
pub mod dwarf;
pub mod elf;
pub mod elf_symbols;
pub mod maps;
pub mod native;
pub mod open;
pub mod root;
pub mod unwind;
