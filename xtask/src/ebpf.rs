//! `cargo xtask ebpf`: builds the eBPF object alone and shows what is in it.

use std::fs;

use ebpf_toolchain::Action;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::{
    process::{Failure, say},
    workspace,
};

/// Builds the object and prints its path and one line per program: section, name, size.
pub fn ebpf() -> Result<(), Failure> {
    let toolchain = ebpf_toolchain::find().map_err(|e| Failure::new(e.to_string()))?;
    say(format!("using {toolchain}"));
    let ebpf = workspace::ebpf_crate()?;
    ebpf.run(&toolchain, Action::Build).map_err(|e| Failure::new(e.to_string()))?;
    let path = ebpf.object();
    let data = fs::read(&path).map_err(|e| Failure::io(&path, &e))?;
    println!("{} ({} bytes)", path.display(), data.len());
    for line in programs(&data).map_err(|e| Failure::new(format!("{}: {e}", path.display())))? {
        println!("{line}");
    }
    Ok(())
}

/// One line per function in a section of code, except `.text`, where shared subprograms are.
fn programs(data: &[u8]) -> Result<Vec<String>, object::Error> {
    let file = object::File::parse(data)?;
    let mut lines = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0) {
        let Some(index) = symbol.section_index() else { continue };
        let section = file.section_by_index(index)?;
        if section.name()? != ".text" {
            let instructions = symbol.size() / 8;
            lines.push(format!("  {:<40} {} ({instructions} instructions)", section.name()?, symbol.name()?));
        }
    }
    lines.sort();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_else_is_not_an_object() {
        assert!(programs(b"#!/bin/sh").is_err());
        assert!(programs(b"").is_err());
    }
}
