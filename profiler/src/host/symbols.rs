//! Whether this process may see kernel symbols and look into other processes: found by trying.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use super::{file, process};

/// Whether /proc/kallsyms shows addresses to this process. `Err`: it cannot be read at all.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn kernel_addresses_visible() -> io::Result<bool> {
    addresses_visible(BufReader::new(File::open("/proc/kallsyms")?))
}

/// Whether one of the first lines has an address that is not 0. On some machines the first symbols are per-CPU offsets
/// that begin at 0, so one line is not enough.
fn addresses_visible(lines: impl BufRead) -> io::Result<bool> {
    for line in lines.lines().take(4096) {
        let line = line?;
        let address = line.split(' ').next().unwrap_or_default();
        if u64::from_str_radix(address, 16).is_ok_and(|address| address != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many of the host's processes let themselves be looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Processes whose mappings can be read.
    pub readable: usize,
    /// Processes that refused.
    pub refused: usize,
    /// One that refused, and how.
    pub example: Option<(u32, i32)>,
}

/// Processes tried by [`visibility`], at most: enough for an answer on a host with very many.
const MAX_TRIED: usize = 2000;

/// Tries to read the mappings of all processes, as naming their functions needs it.
pub fn visibility() -> Visibility {
    let mut seen = Visibility::default();
    for pid in process::all().into_iter().take(MAX_TRIED) {
        match file::read(format!("/proc/{pid}/maps"), 1).map_err(|error| error.raw_os_error()) {
            Ok(_) => seen.readable += 1,
            // Gone meanwhile.
            Err(Some(libc::ENOENT | libc::ESRCH)) => {}
            Err(code) => {
                seen.refused += 1;
                seen.example.get_or_insert((pid, code.unwrap_or(libc::EIO)));
            }
        }
    }
    seen
}

/// Tries to open a file behind /proc/self/map_files, as is done for binaries that are deleted or in another mount
/// namespace.
///
/// # Errors
/// EPERM without CAP_CHECKPOINT_RESTORE (CAP_SYS_ADMIN before Linux 5.9).
pub fn map_files_open() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/map_files")? {
        let path = entry?.path();
        // A mapping can go away between the listing and the opening; the next one then answers.
        match open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn open_read(path: &Path) -> io::Result<()> {
    File::open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_into() {
        assert!(visibility().readable >= 1);
    }

    #[test]
    fn zeros_are_hidden_addresses() {
        assert!(!addresses_visible(&b"0000000000000000 T _text\n0000000000000000 t x\n"[..]).unwrap());
        assert!(addresses_visible(&b"0000000000000000 A fixed\nffffffff81000000 T _text\n"[..]).unwrap());
        assert!(!addresses_visible(&b""[..]).unwrap());
        assert!(!addresses_visible(&b"(null) T _text\n"[..]).unwrap());
    }
}
