//! The vDSO: code that the kernel maps into every process, an ELF image without a file.
//!
//! All 64-bit processes of a host have the same image, so our own is read. 32-bit processes have another one, which
//! has no name here (`[vdso32]`).

use std::{fs::File, os::unix::fs::FileExt};

use super::maps;

/// Most bytes read; the image has two pages.
const MAX_BYTES: u64 = 64 << 10;

/// Our own vDSO's image, if there is one.
pub fn read_own() -> Option<Vec<u8>> {
    let mut range = None;
    maps::read_executable(std::process::id(), &mut Vec::new(), |line| {
        if line.path == b"[vdso]" {
            range = Some((line.start, line.end));
        }
    })
    .ok()?;
    let (start, end) = range?;
    let mut image = vec![0; (end - start).min(MAX_BYTES) as usize];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut image, start).ok()?;
    Some(image)
}
