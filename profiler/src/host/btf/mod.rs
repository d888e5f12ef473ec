//! Offsets of kernel structure members, from the running kernel's type information (BTF).
//!
//! The kernel side reads members of `task_struct` at offsets that differ from build to build; rustc writes no CO-RE
//! relocations, so they are looked up here and patched into read-only globals before load.
//!
//! Format: include/uapi/linux/btf.h and Documentation/bpf/btf.rst. The walker streams the file through one small buffer
//! and keeps only what was asked for. The full parsers that exist build an index of all types first, which cost
//! 120-170 ms and 40 MB for one look-up in a 5.5 MB BTF (btf-rs 2.0; mapping the file instead of reading it needs Linux
//! 6.16); this takes a few milliseconds and under 200 KiB. A test compares the two on the running kernel.

mod net;
mod packets;
mod sched;
mod walk;

use std::path::{Path, PathBuf};

use profiler_common::task::TaskOffsets;

pub use net::net_offsets;
pub use packets::{DropReasons, drops, packet_offsets};
pub use sched::sched_offsets;
use walk::{Aggregate, Walker};

/// Where the running kernel publishes its own types (CONFIG_DEBUG_INFO_BTF).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Anonymous structures inside a structure are followed this deep. `task_struct` has one level, if the kernel was
/// built with CONFIG_RANDSTRUCT.
const MAX_DEPTH: usize = 4;

/// Anonymous members looked into per structure.
const MAX_ANONYMOUS: usize = 256;

/// Why an offset is not known.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The BTF file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// The file is not BTF, or contradicts itself.
    #[error("{}: not valid BTF: {what}", path.display())]
    Malformed {
        /// The BTF file.
        path: PathBuf,
        /// The first thing that is wrong.
        what: &'static str,
    },
    /// A kind of type whose length is not known, so that the types behind it cannot be found.
    #[error("{}: unknown BTF type kind {kind}", path.display())]
    UnknownKind {
        /// The BTF file.
        path: PathBuf,
        /// Its number.
        kind: u8,
    },
    /// No structure of that name.
    #[error("{}: no structure `{structure}`", path.display())]
    NoStructure {
        /// The BTF file.
        path: PathBuf,
        /// The name asked for.
        structure: String,
    },
    /// The structure has no member of any of the names, at a whole byte.
    #[error("{}: `{structure}` has no member `{member}`", path.display())]
    NoMember {
        /// The BTF file.
        path: PathBuf,
        /// The structure.
        structure: String,
        /// The names tried, `a` or `a|b`.
        member: String,
    },
}

/// Byte offsets of the members of a structure. Each member is given by its names, the preferred one first (kernels
/// rename members); anonymous structures and unions inside are searched too.
///
/// # Errors
/// [`BtfError`]; in particular if one of the members is missing, because a wrong offset reads a wrong number.
pub fn member_offsets<const N: usize>(
    path: &Path,
    structure: &str,
    members: [&[&str]; N],
) -> Result<[u32; N], BtfError> {
    let (_, found) = find(path, structure, &members.concat())?;
    let found: Vec<_> = found.into_iter().map(|place| place.and_then(Place::byte)).collect();
    let mut offsets = [0; N];
    let mut next = 0;
    for (offset, alternatives) in offsets.iter_mut().zip(members) {
        let here = &found[next..next + alternatives.len()];
        next += alternatives.len();
        *offset = here.iter().copied().flatten().next().ok_or_else(|| BtfError::NoMember {
            path: path.to_owned(),
            structure: structure.to_owned(),
            member: alternatives.join("|"),
        })?;
    }
    Ok(offsets)
}

/// Bytes of a structure, and the offset of each member that it has; each member is given by one name.
///
/// # Errors
/// [`BtfError`]; not if a member is missing.
pub fn size_and_offsets<const N: usize>(
    path: &Path,
    structure: &str,
    members: [&str; N],
) -> Result<(u32, [Option<u32>; N]), BtfError> {
    let (size, found) = find(path, structure, &members)?;
    Ok((size, std::array::from_fn(|i| found[i].and_then(Place::byte))))
}

/// The byte that a bit field of one bit is in, and the bit as a mask of that byte.
///
/// # Errors
/// [`BtfError`]; in particular if there is no such member, or it has more bits.
pub fn single_bit(path: &Path, structure: &str, member: &str) -> Result<(u32, u32), BtfError> {
    let (_, found) = find(path, structure, &[member])?;
    found[0].and_then(Place::single_bit).ok_or_else(|| BtfError::NoMember {
        path: path.to_owned(),
        structure: structure.to_owned(),
        member: member.to_owned(),
    })
}

/// Where a member is: bits from the start of the structure, and how many if it is a bit field, else 0.
#[derive(Clone, Copy)]
struct Place {
    bit: u32,
    bits: u32,
}

impl Place {
    /// The offset in bytes, unless it is a bit field.
    const fn byte(self) -> Option<u32> {
        if self.bits == 0 && self.bit.is_multiple_of(8) { Some(self.bit / 8) } else { None }
    }

    /// Byte and mask. All machines here are little-endian: bits count from the lowest.
    const fn single_bit(self) -> Option<(u32, u32)> {
        if self.bits == 1 { Some((self.bit / 8, 1 << (self.bit % 8))) } else { None }
    }
}

/// Bytes of a structure and the place of each name among its members.
fn find(path: &Path, structure: &str, members: &[&str]) -> Result<(u32, Vec<Option<Place>>), BtfError> {
    let mut walker = Walker::open(path)?;
    let names: Vec<&str> = std::iter::once(structure).chain(members.iter().copied()).collect();
    let positions = walker.positions_of(&names)?;
    let start = walker
        .aggregate(|_, ty| ty.is_aggregate() && ty.len > 0 && positions[0].contains(&ty.name))?
        .ok_or_else(|| BtfError::NoStructure { path: path.to_owned(), structure: structure.to_owned() })?;
    let size = start.size;
    Ok((size, collect(&mut walker, start, &positions[1..])?))
}

/// The place of each name among the members of `start` and of the anonymous aggregates inside it.
fn collect(
    walker: &mut Walker,
    start: Aggregate,
    names: &[Vec<u32>],
) -> Result<Vec<Option<Place>>, BtfError> {
    let mut found = vec![None; names.len()];
    let mut level = vec![(0u32, start)];
    for _ in 0..MAX_DEPTH {
        let mut inner = Vec::new();
        for (base, aggregate) in &level {
            for member in &aggregate.members {
                let Some(bit) = member.bit_offset.checked_add(*base) else { continue };
                if member.name == 0 && inner.len() < MAX_ANONYMOUS {
                    inner.push((bit, member.ty));
                }
                for (slot, positions) in found.iter_mut().zip(names) {
                    if slot.is_none() && positions.contains(&member.name) {
                        *slot = Some(Place { bit, bits: member.bits });
                    }
                }
            }
        }
        // Usually all are found at once, and nothing more is read.
        if inner.is_empty() || found.iter().all(Option::is_some) {
            break;
        }
        level.clear();
        for (bit, id) in inner {
            if let Some(aggregate) = walker.aggregate(|this, ty| this == id && ty.is_aggregate())? {
                level.push((bit, aggregate));
            }
        }
    }
    Ok(found)
}

/// The members of `task_struct` that the kernel side reads.
///
/// # Errors
/// [`BtfError`]. The caller records with [`TaskOffsets::UNKNOWN`] then, and says so.
pub fn task_offsets(path: &Path) -> Result<TaskOffsets, BtfError> {
    let [tgid, pid, group_leader, start_boottime, self_exec_id, stack, flags] = member_offsets(
        path,
        "task_struct",
        // `real_start_time` became `start_boottime` in Linux 5.5 (cf25e24db61c).
        [
            &["tgid"],
            &["pid"],
            &["group_leader"],
            &["start_boottime", "real_start_time"],
            &["self_exec_id"],
            &["stack"],
            &["flags"],
        ],
    )?;
    let user_registers = 0;
    Ok(TaskOffsets {
        known: 1,
        tgid,
        pid,
        group_leader,
        start_boottime,
        self_exec_id,
        stack,
        user_registers,
        flags,
    })
}

/// The id of the typedef of that name, for programs that attach by type id (`btf_trace_sched_process_fork`).
///
/// # Errors
/// [`BtfError`]; [`BtfError::NoStructure`] if there is none.
pub fn typedef_id(path: &Path, name: &str) -> Result<u32, BtfError> {
    let mut walker = Walker::open(path)?;
    let positions = walker.positions_of(&[name])?;
    walker
        .find(|_, ty| ty.kind == walk::KIND_TYPEDEF && positions[0].contains(&ty.name))?
        .ok_or_else(|| BtfError::NoStructure { path: path.to_owned(), structure: name.to_owned() })
}

#[cfg(test)]
mod tests;
