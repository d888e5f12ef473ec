//! The shared libraries that programs need at run time, read from the programs: what `ldd` says, but for any
//! architecture, and without running anything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use object::{
    Endianness, StringTable,
    elf::{DT_NEEDED, DT_STRTAB, FileHeader64, PT_INTERP},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

use crate::process::{Failure, capture};

/// What an ELF file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The dynamic linker's path.
    interpreter: Option<String>,
    /// Names of shared libraries.
    libraries: Vec<String>,
}

/// All libraries that the programs need, directly or not: the path in the guest, and the file here. `compiler` is the
/// C compiler that made them and knows where its libraries are.
pub fn closure(programs: &[PathBuf], compiler: &str) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = programs.to_vec();
    while let Some(file) = open.pop() {
        let data = fs::read(&file).map_err(|e| Failure::io(&file, &e))?;
        let needs = needs(&data).map_err(|e| Failure::new(format!("{}: {e}", file.display())))?;
        let interpreter = needs.interpreter.iter().map(|path| (path.clone(), name(path).to_owned()));
        let libraries = needs.libraries.iter().map(|name| (format!("/lib/{name}"), name.clone()));
        for (inside, name) in interpreter.chain(libraries) {
            if found.contains_key(&inside) {
                continue;
            }
            let path = locate(&name, compiler)?;
            open.push(path.clone());
            found.insert(inside, path);
        }
    }
    Ok(found)
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn locate(name: &str, compiler: &str) -> Result<PathBuf, Failure> {
    let answer = capture(Command::new(compiler).arg(format!("-print-file-name={name}")))?;
    let path = Path::new(answer.trim());
    // The name alone is how the compiler says that it does not know it.
    if path.is_absolute() {
        return path.canonicalize().map_err(|e| Failure::io(path, &e));
    }
    Err(Failure::new(format!("{compiler} does not know where {name} is")))
}

fn needs(data: &[u8]) -> Result<Needs, object::Error> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut needs = Needs::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP {
            // A debug file has the segment, but nothing in it.
            let path = text(segment.data(endian, data).unwrap_or_default());
            needs.interpreter = Some(path).filter(|path| path.starts_with('/'));
        }
        let Some(entries) = segment.dynamic(endian, data)? else { continue };
        let table = entries.iter().find(|entry| entry.d_tag(endian) == DT_STRTAB);
        let address = table.map_or(0, |entry| entry.d_val(endian));
        let offset = segments.iter().find_map(|segment| {
            let start = segment.p_vaddr(endian);
            let inside = (start..start + segment.p_filesz(endian)).contains(&address);
            inside.then(|| address - start + segment.p_offset(endian))
        });
        let strings = StringTable::new(data, offset.unwrap_or(0), data.len() as u64);
        for entry in entries.iter().filter(|entry| entry.d_tag(endian) == DT_NEEDED) {
            needs.libraries.push(text(entry.string(endian, strings)?));
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_own_program_needs_the_c_library_and_a_linker() {
        let me = std::env::current_exe().unwrap();
        let needs = needs(&fs::read(&me).unwrap()).unwrap();
        assert!(needs.libraries.contains(&"libc.so.6".to_owned()), "{needs:?}");
        let interpreter = needs.interpreter.unwrap();
        let found = closure(&[me], "gcc").unwrap();
        assert!(found.contains_key("/lib/libc.so.6") && found.contains_key(&interpreter), "{found:?}");
    }

    #[test]
    fn a_library_that_is_nowhere_is_named() {
        let failure = locate("libnowhere.so.9", "gcc").unwrap_err();
        assert_eq!(failure.to_string(), "gcc does not know where libnowhere.so.9 is");
    }
}
