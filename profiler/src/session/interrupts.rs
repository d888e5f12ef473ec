//! Where interrupts begin in kernel stacks.

use crate::model::{FrameKind, LocationId, Profile};

/// Functions that an interrupt enters the kernel by; what is outside of them was at work on something else. x86-64
/// (arch/x86/include/asm/idtentry.h), aarch64 (arch/arm64/kernel/entry-common.c, entry.S before Linux 5.14).
const INTERRUPTS: &[&str] = &[
    "asm_common_interrupt",
    "common_interrupt",
    "asm_sysvec_",
    "sysvec_",
    "apic_timer_interrupt",
    "hyperv_callback_vector",
    "reschedule_interrupt",
    "call_function_interrupt",
    "call_function_single_interrupt",
    "asm_exc_nmi",
    "el0_interrupt",
    "el1_interrupt",
    "el0_irq",
    "el1_irq",
    "el0t_64_irq",
    "el1h_64_irq",
];

/// The same of soft interrupts (kernel/softirq.c), whether they are run behind an interrupt, where a task switches them on
/// again, or by a thread of their own.
const SOFT_INTERRUPTS: &[&str] = &["handle_softirqs", "__do_softirq", "__softirqentry_text_start"];

/// Whether an interrupt enters the kernel there.
pub fn is_interrupt(profile: &Profile, location: LocationId) -> bool {
    begins(profile, location, INTERRUPTS)
}

/// The same of soft ones.
pub fn is_soft_interrupt(profile: &Profile, location: LocationId) -> bool {
    begins(profile, location, SOFT_INTERRUPTS)
}

fn begins(profile: &Profile, location: LocationId, entries: &[&str]) -> bool {
    let location = &profile.locations[location.index()];
    let is_entry = |name: &str| entries.iter().any(|entry| name.starts_with(entry));
    location.kind == FrameKind::Kernel
        && location.lines.iter().any(|line| is_entry(&profile.functions[line.function.index()].name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Function, FunctionId, Line, Location, ModuleId};

    #[test]
    fn interrupts_are_known_by_where_they_enter() {
        let mut profile = Profile::default();
        for (i, name) in ["do_idle", "sysvec_apic_timer_interrupt", "handle_softirqs"].iter().enumerate() {
            profile.functions.push(Function { name: (*name).to_owned(), file: None, unresolved: None });
            profile.locations.push(Location {
                module: ModuleId(0),
                address: i as u64,
                lines: vec![Line { function: FunctionId(i as u32), line: 0 }],
                kind: FrameKind::Kernel,
            });
        }
        let found = [0, 1, 2]
            .map(|i| (is_interrupt(&profile, LocationId(i)), is_soft_interrupt(&profile, LocationId(i))));
        assert_eq!(found, [(false, false), (true, false), (false, true)]);
    }
}
