//! What an executable needs at run time, read from the executable itself.

use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64, PT_INTERP},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

/// Checks that the kernel of a machine can run the program with no other file: it names no dynamic linker and no shared
/// library. `machine` is the number that it has in ELF files.
///
/// # Errors
/// What it needs, or why it cannot be read.
pub fn is_self_contained(data: &[u8], machine: u16) -> Result<(), String> {
    let unreadable = |e: object::Error| format!("not a 64-bit ELF executable: {e}");
    let header = FileHeader64::<Endianness>::parse(data).map_err(unreadable)?;
    let endian = header.endian().map_err(unreadable)?;
    let made_for = header.e_machine(endian);
    if made_for != machine {
        return Err(format!("is for machine {made_for}, not {machine} (e_machine)"));
    }
    for segment in header.program_headers(endian, data).map_err(unreadable)? {
        if segment.p_type(endian) == PT_INTERP {
            return Err("needs a dynamic linker (it has a PT_INTERP segment)".into());
        }
        let entries = segment.dynamic(endian, data).map_err(unreadable)?.unwrap_or_default();
        let needed = entries.iter().filter(|entry| entry.d_tag(endian) == DT_NEEDED).count();
        if needed > 0 {
            return Err(format!("needs {needed} shared libraries (DT_NEEDED)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test's own executable, which needs libraries, and the machine that it is for.
    fn own_executable() -> (Vec<u8>, u16) {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let machine = u16::from_le_bytes([me[18], me[19]]);
        (me, machine)
    }

    #[test]
    fn a_dynamic_program_is_refused() {
        let (me, machine) = own_executable();
        let why = is_self_contained(&me, machine).unwrap_err();
        assert_eq!(why, "needs a dynamic linker (it has a PT_INTERP segment)");
    }

    #[test]
    fn a_library_without_interpreter_but_with_needs_is_refused() {
        let (mut me, machine) = own_executable();
        // The program header table starts at e_phoff; PT_INTERP becomes PT_NULL.
        let table = usize::try_from(u64::from_le_bytes(me[32..40].try_into().unwrap())).unwrap();
        let count = usize::from(u16::from_le_bytes([me[56], me[57]]));
        for at in (0..count).map(|index| table + index * 56) {
            if me[at..at + 4] == PT_INTERP.to_le_bytes() {
                me[at..at + 4].fill(0);
            }
        }
        let why = is_self_contained(&me, machine).unwrap_err();
        assert!(why.contains("DT_NEEDED"), "{why}");
    }

    #[test]
    fn a_program_for_another_machine_is_refused() {
        let (me, machine) = own_executable();
        let why = is_self_contained(&me, machine + 1).unwrap_err();
        assert_eq!(why, format!("is for machine {machine}, not {} (e_machine)", machine + 1));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(is_self_contained(b"", 0).is_err());
        assert!(is_self_contained(b"\x7fELF\x02\x01\x01", 0).is_err());
    }
}
