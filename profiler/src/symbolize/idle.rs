//! Is a sample of the idle task idleness, or work that an interrupt does on an idle CPU?
//!
//! The idle task (pid 0) loops in `do_idle`, which halts the CPU through one of many drivers. Whatever function of
//! that loop is sampled, the CPU has nothing to do; but interrupts and softirqs that arrive run on the idle task's
//! stack, and they are work.

/// Functions of the idle loop that a sample of an idle CPU hits (x86-64 and aarch64; kernel/sched/idle.c,
/// drivers/cpuidle, drivers/idle, arch/*/kernel/process.c).
const LEAVES: &[&str] = &[
    "default_idle",
    "default_idle_call",
    "pv_native_safe_halt",
    "native_safe_halt",
    "native_halt",
    "arch_safe_halt",
    "safe_halt",
    "acpi_safe_halt",
    "poll_idle",
    "cpu_idle_poll",
    "do_idle",
    "cpu_startup_entry",
    "arch_cpu_idle",
    "arch_cpu_idle_enter",
    "arch_cpu_idle_exit",
    "cpu_do_idle",
    "cpu_idle_loop",
    "call_cpuidle",
    "cpuidle_idle_call",
    "psci_enter_idle_state",
    "psci_cpu_suspend_enter",
    "tdx_safe_halt",
    "xen_safe_halt",
    "hv_qlock_wait",
    "amd_e400_idle",
    "haltpoll_enter_idle",
    "default_enter_idle",
];
/// Beginnings of such names, one per driver or variant.
const LEAF_PREFIXES: &[&str] = &[
    "mwait_idle",
    "intel_idle",
    "acpi_idle_",
    "acpi_processor_ffh_cstate_enter",
    "cpuidle_enter",
    "default_idle_",
];

/// Functions through which interrupts and softirqs enter (arch/x86/include/asm/idtentry.h, arch/arm64/kernel/entry*).
const WORK: &[&str] = &[
    "handle_softirqs",
    "__do_softirq",
    "__irq_exit_rcu",
    "irq_exit_rcu",
    "irq_exit",
    "common_interrupt",
    "el1_irq",
    "el1_interrupt",
    "el1h_64_irq",
    "el1h_64_irq_handler",
    "el1h_64_fiq",
    "gic_handle_irq",
    "call_on_irq_stack",
    "do_interrupt_handler",
    "generic_handle_arch_irq",
    "flush_smp_call_function_queue",
    "__flush_smp_call_function_queue",
    "exc_nmi",
    "asm_exc_nmi",
    "ret_from_intr",
];
/// Beginnings of such names, one per vector.
const WORK_PREFIXES: &[&str] = &[
    "asm_sysvec_",
    "sysvec_",
    "__sysvec_",
    "asm_common_interrupt",
    "common_interrupt_",
    "asm_exc_",
    "smp_apic_",
];

/// Whether a kernel function is one that an idle CPU is found in.
pub fn is_idle_leaf(name: &str) -> bool {
    LEAVES.contains(&name) || LEAF_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a kernel function is the way into an interrupt or softirq.
pub fn is_interrupt(name: &str) -> bool {
    WORK.contains(&name) || WORK_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a kernel stack (names, leaf first) of the *idle task* shows an idle CPU: no interrupt is in it. Stacks
/// without names are idle, which is what idle tasks mostly are.
pub fn is_idle_stack<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    !names.any(is_interrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_loops_are_idle() {
        for leaf in [
            "pv_native_safe_halt",
            "acpi_idle_do_entry",
            "intel_idle_irq",
            "mwait_idle_with_hints.constprop.0",
        ] {
            assert!(is_idle_leaf(leaf), "{leaf}");
        }
        assert!(!is_idle_leaf("schedule"));
        assert!(!is_idle_leaf("ext4_file_write_iter"));
    }

    #[test]
    fn interrupts_on_an_idle_cpu_are_work() {
        let idle = ["pv_native_safe_halt", "default_idle", "do_idle", "cpu_startup_entry"];
        assert!(is_idle_stack(idle.into_iter()));
        assert!(is_idle_stack(["menu_select", "do_idle"].into_iter()), "choosing how to idle");
        assert!(is_idle_stack([].into_iter()));
        let softirq = ["net_rx_action", "handle_softirqs", "__irq_exit_rcu"];
        assert!(!is_idle_stack(softirq.into_iter().chain(idle)));
        assert!(!is_idle_stack(
            ["tick_irq_enter", "asm_sysvec_apic_timer_interrupt"].into_iter().chain(idle)
        ));
    }
}
