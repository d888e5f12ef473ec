//! Where a task's user registers are on its kernel stack: at the upper end, `task_pt_regs` of
//! arch/{x86,arm64}/include/asm/processor.h. Needed where the kernel has no helper that tells (`bpf_task_pt_regs`).
//!
//! The stack's size is a constant of the kernel's build that no type tells; what it depends on can be seen:
//! `THREAD_SIZE` is 16 KiB on x86-64 and arm64, doubled by KASAN (then `task_struct` has the member `kasan_depth`), and
//! at least a page (arm64 with pages of 64 KiB). x86-64 leaves 16 bytes free above the registers if it was built with
//! FRED (since Linux 6.9, 65c9cc9e2c14), which `struct fred_frame` shows: the registers and what FRED adds to them.

use std::path::Path;

use super::btf::{self, BtfError};

/// `THREAD_SIZE` of x86-64 and arm64 without KASAN and with pages of 4 KiB.
const STACK_BYTES: u32 = 16 << 10;

/// What FRED adds can be believed up to this many bytes.
const MAX_FRED_BYTES: u32 = 64;

/// Bytes from the lowest address of a kernel stack to the user registers at its other end.
///
/// # Errors
/// [`BtfError`], in particular if the size of `struct pt_regs` is not to be had.
pub fn user_registers_offset(btf_path: &Path) -> Result<u32, BtfError> {
    let (_, [kasan_depth]) = btf::size_and_offsets(btf_path, "task_struct", ["kasan_depth"])?;
    let (registers, []) = btf::size_and_offsets(btf_path, "pt_regs", [])?;
    let fred_frame = match btf::size_and_offsets(btf_path, "fred_frame", []) {
        Ok((size, [])) => Some(size),
        Err(BtfError::NoStructure { .. }) => None,
        Err(error) => return Err(error),
    };
    let page = u32::try_from(rustix::param::page_size()).unwrap_or(0);
    Ok(offset(page, kasan_depth.is_some(), registers, fred_frame))
}

/// The same from its parts; sizes in bytes. 0 if they contradict each other.
fn offset(page: u32, kasan: bool, registers: u32, fred_frame: Option<u32>) -> u32 {
    let stack = (STACK_BYTES << u32::from(kasan)).max(page);
    let padding = fred_frame.and_then(|frame| frame.checked_sub(registers)).unwrap_or(0);
    if padding > MAX_FRED_BYTES { 0 } else { stack.saturating_sub(padding).saturating_sub(registers) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_end_where_the_stack_does() {
        // x86-64: sizeof(struct pt_regs) is 168; arm64 with pages of 4 and of 64 KiB: 336.
        assert_eq!(offset(4096, false, 168, None), 16384 - 168);
        assert_eq!(offset(4096, true, 168, None), 32768 - 168);
        assert_eq!(offset(4096, false, 168, Some(184)), 16384 - 16 - 168);
        assert_eq!(offset(4096, false, 336, None), 16384 - 336);
        assert_eq!(offset(65536, false, 336, None), 65536 - 336);
    }

    #[test]
    fn nothing_is_guessed_from_sizes_that_cannot_be() {
        assert_eq!(offset(4096, false, 1 << 20, None), 0);
        assert_eq!(offset(4096, false, 168, Some(4096)), 0);
    }
}
