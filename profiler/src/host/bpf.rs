//! bpf(2): what it allows here, found by creating a tiny map and loading tiny programs, which are closed at once, and its
//! calls that aya does not make.
//!
//! Whether it works depends on capabilities, `kernel.unprivileged_bpf_disabled`, lockdown, LSMs, seccomp, the user
//! namespace, RLIMIT_MEMLOCK (before 5.11) and the kernel's configuration: no file tells it all.
//! Layouts: `union bpf_attr`, include/uapi/linux/bpf.h. The kernel takes a shorter attribute than its own and reads the
//! rest as 0.

use std::{
    ffi::{CStr, c_long},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

use super::pmu::last_errno;

/// A kind of map to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// One number per CPU: every recording's counters.
    PerCpuArray,
    /// Events and the kernel side's log (Linux 5.8).
    RingBuffer,
    /// A slot that holds another map: the two generations that are swapped to drain without loss.
    ArrayOfMaps,
}

/// A program to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Runs on a perf event and does nothing.
    PerfEvent,
    /// The same, calling `bpf_get_stack`: needs CAP_PERFMON besides CAP_BPF.
    PerfEventStack,
    /// The same, calling `bpf_probe_read_kernel`: refused by lockdown's confidentiality mode.
    PerfEventReadKernel,
    /// The same, calling `bpf_get_current_ancestor_cgroup_id`, the filter by cgroup.
    PerfEventCgroup,
    /// A raw tracepoint program, for process forks.
    RawTracepoint,
    /// A tracing program on a tracepoint by its BTF type, the id of a `btf_trace_*` typedef.
    TracepointBtf(u32),
    /// A program that calls `bpf_get_current_task_btf` and loads from what it gives.
    TaskBtf,
    /// A program that hands the same to `bpf_task_pt_regs`.
    TaskPtRegs,
    /// A program that calls the helper of this number with whatever the registers hold: see [`knows_helper`].
    Helper(i32),
}

const BPF_MAP_CREATE: c_long = 0;
const BPF_PROG_LOAD: c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_BTF_LOAD: c_long = 18;
const BPF_ENABLE_STATS: c_long = 32;

/// `enum bpf_map_type`.
pub const BPF_MAP_TYPE_HASH: u32 = 1;
/// `enum bpf_map_type`.
pub const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

const BPF_PROG_TYPE_PERF_EVENT: u32 = 7;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_RAW_TP: u32 = 23;

const BPF_FUNC_GET_STACK: i32 = 67;
const BPF_FUNC_PROBE_READ_KERNEL: i32 = 113;
const BPF_FUNC_GET_CURRENT_ANCESTOR_CGROUP_ID: i32 = 123;
const BPF_FUNC_GET_CURRENT_TASK_BTF: i32 = 158;
const BPF_FUNC_TASK_PT_REGS: i32 = 175;

/// `union bpf_attr`, the part for creating maps. Sizes are bytes.
#[repr(C)]
#[derive(Default)]
#[expect(missing_docs, reason = "the kernel's names")]
pub struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub map_name: [u8; 16],
    pub map_ifindex: u32,
    pub btf_fd: u32,
    pub btf_key_type_id: u32,
    pub btf_value_type_id: u32,
}

/// `union bpf_attr`, the part for loading BTF.
#[repr(C)]
#[derive(Default)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

const _: () = assert!(size_of::<MapCreate>() == 60 && size_of::<ProgLoad>() == 112);
const _: () = assert!(size_of::<BtfLoad>() == 32);
const _: () = assert!(std::mem::offset_of!(ProgLoad, attach_btf_id) == 108);

#[repr(C)]
struct RawTracepointOpen {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

#[repr(C)]
struct EnableStats {
    kind: u32,
}

/// `struct bpf_insn`: operation, registers (source in the high half), offset, immediate.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn(u8, u8, i16, i32);

/// `dst = immediate` (64 bits).
const fn set(dst: u8, value: i32) -> Insn {
    Insn(0xb7, dst, 0, value)
}

/// `dst = src` (64 bits).
const fn copy(dst: u8, src: u8) -> Insn {
    Insn(0xbf, src << 4 | dst, 0, 0)
}

/// `dst += immediate` (64 bits).
const fn add(dst: u8, value: i32) -> Insn {
    Insn(0x07, dst, 0, value)
}

/// `dst = *(u64 *)(src + 0)`.
const fn load_u64(dst: u8, src: u8) -> Insn {
    Insn(0x79, src << 4 | dst, 0, 0)
}

const fn call(helper: i32) -> Insn {
    Insn(0x85, 0, 0, helper)
}

const EXIT: Insn = Insn(0x95, 0, 0, 0);

/// The frame pointer, one behind the highest byte of the program's stack.
const R10: u8 = 10;

fn bpf<T>(command: c_long, attr: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: `attr` is the command's part of union bpf_attr (sizes asserted above) with its exact size; pointers in it
    // point to memory that outlives the call. The kernel only reads it: no log buffer is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: the commands used here return a new descriptor, which nothing else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(last_errno()),
    }
}

/// Loads a description of types.
///
/// # Errors
/// That of bpf(2).
pub fn load_btf(description: &[u8]) -> Result<OwnedFd, Errno> {
    let btf = description.as_ptr().addr() as u64;
    bpf(BPF_BTF_LOAD, &BtfLoad { btf, btf_size: description.len() as u32, ..Default::default() })
}

/// Creates a map.
///
/// # Errors
/// That of bpf(2): EPERM also before 5.11 with too small an RLIMIT_MEMLOCK.
pub fn create(attr: &MapCreate) -> Result<OwnedFd, Errno> {
    bpf(BPF_MAP_CREATE, attr)
}

/// Creates a map of one entry.
///
/// # Errors
/// That of bpf(2): EPERM without CAP_BPF or, before 5.11, with too small an RLIMIT_MEMLOCK; EINVAL for an unknown kind.
pub fn create_map(map: Map) -> Result<OwnedFd, Errno> {
    let array = MapCreate { key_size: 4, value_size: 8, max_entries: 1, ..Default::default() };
    match map {
        Map::PerCpuArray => create(&MapCreate { map_type: BPF_MAP_TYPE_PERCPU_ARRAY, ..array }),
        Map::RingBuffer => {
            let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
            let attr = MapCreate { map_type: BPF_MAP_TYPE_RINGBUF, max_entries: page, ..Default::default() };
            create(&attr)
        }
        Map::ArrayOfMaps => {
            let inner = create(&MapCreate { map_type: BPF_MAP_TYPE_ARRAY, ..array })?;
            let attr = MapCreate {
                map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
                value_size: 4,
                inner_map_fd: inner.as_raw_fd() as u32,
                ..array
            };
            create(&attr)
        }
    }
}

/// Loads a program of a few instructions.
///
/// # Errors
/// That of bpf(2): EPERM without CAP_BPF and CAP_PERFMON or by lockdown, EINVAL or EACCES if the verifier refuses a
/// helper, EINVAL for an unknown kind.
pub fn load(program: Program) -> Result<OwnedFd, Errno> {
    let (prog_type, expected_attach_type, attach_btf_id) = match program {
        Program::RawTracepoint => (BPF_PROG_TYPE_RAW_TRACEPOINT, 0, 0),
        Program::TracepointBtf(id) => (BPF_PROG_TYPE_TRACING, BPF_TRACE_RAW_TP, id),
        _ => (BPF_PROG_TYPE_PERF_EVENT, 0, 0),
    };
    let insns = instructions(program);
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type,
            insn_cnt: insns.len() as u32,
            insns: insns.as_ptr().addr() as u64,
            // The helpers are for GPL-compatible programs only, as the real ones are.
            license: c"Dual MIT/GPL".as_ptr().addr() as u64,
            prog_name: *b"profiler_doctor\0",
            expected_attach_type,
            attach_btf_id,
            ..Default::default()
        },
    )
}

fn instructions(program: Program) -> Vec<Insn> {
    let mut insns = match program {
        // bpf_get_stack(context, stack - 64, 64, 0)
        Program::PerfEventStack => {
            vec![copy(2, R10), add(2, -64), set(3, 64), set(4, 0), call(BPF_FUNC_GET_STACK)]
        }
        // bpf_probe_read_kernel(stack - 8, 8, 0)
        Program::PerfEventReadKernel => {
            vec![copy(1, R10), add(1, -8), set(2, 8), set(3, 0), call(BPF_FUNC_PROBE_READ_KERNEL)]
        }
        // bpf_get_current_ancestor_cgroup_id(1)
        Program::PerfEventCgroup => vec![set(1, 1), call(BPF_FUNC_GET_CURRENT_ANCESTOR_CGROUP_ID)],
        Program::TaskBtf => vec![call(BPF_FUNC_GET_CURRENT_TASK_BTF), load_u64(0, 0)],
        Program::TaskPtRegs => {
            vec![call(BPF_FUNC_GET_CURRENT_TASK_BTF), copy(1, 0), call(BPF_FUNC_TASK_PT_REGS)]
        }
        Program::Helper(helper) => vec![call(helper)],
        Program::PerfEvent | Program::RawTracepoint | Program::TracepointBtf(_) => Vec::new(),
    };
    insns.extend([set(0, 0), EXIT]);
    insns
}

/// Whether programs on perf events may call the helper of that number (`BPF_FUNC_*`). The verifier refuses a helper that
/// it does not know with EINVAL, and only then looks at the arguments, which are wrong here: EACCES.
///
/// # Errors
/// That of bpf(2): EPERM without CAP_BPF and CAP_PERFMON, EINVAL if there is no such helper.
pub fn knows_helper(helper: i32) -> Result<(), Errno> {
    match load(Program::Helper(helper)) {
        Ok(_) | Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Attaches a raw tracepoint program to the tracepoint of that name; detached when the descriptor is closed.
///
/// # Errors
/// That of bpf(2); ENOENT if the kernel has no such tracepoint.
pub fn attach_raw_tracepoint(program: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let name = name.as_ptr().addr() as u64;
    bpf(BPF_RAW_TRACEPOINT_OPEN, &RawTracepointOpen { name, prog_fd: program.as_raw_fd() as u32, padding: 0 })
}

/// Turns on the measurement of programs' run time while the descriptor is open (Linux 5.8).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN; EINVAL before 5.8.
pub fn enable_stats() -> Result<OwnedFd, Errno> {
    // BPF_STATS_RUN_TIME is 0.
    bpf(BPF_ENABLE_STATS, &EnableStats { kind: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_kernels_encoding() {
        let bytes = |insn: Insn| (insn.0, insn.1, insn.2, insn.3);
        assert_eq!(size_of::<Insn>(), 8);
        // As a disassembler prints them: bf a2 = "r2 = r10"; 07 02 = "r2 += -64".
        assert_eq!(bytes(copy(2, R10)), (0xbf, 0xa2, 0, 0));
        assert_eq!(bytes(add(2, -64)), (0x07, 0x02, 0, -64));
        assert_eq!(instructions(Program::PerfEvent).len(), 2);
    }

    #[test]
    fn helpers_are_known_or_not() {
        // bpf_map_lookup_elem, which is older than all that is supported, with no map to look into.
        assert!(matches!(knows_helper(1), Ok(()) | Err(Errno::PERM)));
        assert!(matches!(knows_helper(1 << 20), Err(Errno::INVAL | Errno::PERM)));
    }

    #[test]
    fn an_impossible_program_is_refused() {
        // Type id 0 is void: never a tracepoint. Unprivileged, the permission is checked first.
        assert!(matches!(load(Program::TracepointBtf(0)), Err(Errno::INVAL | Errno::PERM)));
    }
}
