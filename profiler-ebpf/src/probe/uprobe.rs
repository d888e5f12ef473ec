//! Probe `uprobe`: who comes to a place in a program's code, and from where.
//!
//! Hook: a breakpoint at any instruction of a file, or at the return from a function (uprobe, uretprobe), for all
//! processes that map the file. Yields counts keyed as those of the `cpu` probe, without a kernel stack: the walk begins
//! at the hooked instruction, or where the function returns to, with the registers that it has there.
//!
//! Since Linux 6.0 (8c7dcb84e3b7) these programs can be preempted, by a task that runs another one of them on the same CPU.
//! A CPU's memory is therefore taken before it is used, by an entry in a map, which one program alone can make; who finds
//! it taken counts a loss. Older kernels, and those that run no other program meanwhile, never find it so.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::{HashMap, ProgramArray},
    helpers::generated::bpf_get_smp_processor_id,
    macros::btf_map,
    programs::ProbeContext,
};
use profiler_common::{loss::Loss, sample::What};

use crate::{loss, sample::Probe, unwind::Slot};

#[btf_map]
static UPROBE_PROGRAMS: ProgramArray<2> = ProgramArray::new();

/// The CPUs whose memory is in use; the value says nothing. Sized at load.
#[btf_map]
static UPROBE_BUSY: HashMap<u32, u8, 1> = HashMap::new();

/// The probe, for the event at a place.
pub enum Uprobe<const PLACE: usize> {}

impl<const PLACE: usize> Probe for Uprobe<PLACE> {
    type Context = ProbeContext;
    const WHAT: What = What::HOOKS[PLACE];
    const SLOT: Slot = Slot::Uprobe;
    const IDLE_TASK: bool = false;
    const KERNEL_STACK: bool = false;

    #[inline(always)]
    fn programs() -> &'static ProgramArray<2> {
        &UPROBE_PROGRAMS
    }

    #[inline(always)]
    fn enter() -> bool {
        enter()
    }

    #[inline(always)]
    fn leave() {
        leave();
    }
}

/// Takes this CPU's memory for programs at places in user code; `false`: another one has it, which is counted.
#[inline(always)]
pub fn enter() -> bool {
    let is_mine = UPROBE_BUSY.insert(cpu(), 1, BPF_NOEXIST as u64).is_ok();
    if !is_mine {
        loss::count(Loss::UprobeBusy);
    }
    is_mine
}

/// Gives it back.
#[inline(always)]
pub fn leave() {
    // It is there: who leaves has entered, on this CPU, which such programs do not leave.
    _ = UPROBE_BUSY.remove(cpu());
}

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_get_smp_processor_id() }
}
