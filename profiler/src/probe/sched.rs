//! Probe `sched`, user side: tracepoints of the scheduler and of interrupts. It counts no samples: what it yields are
//! accounts of threads and of CPUs ([`crate::bpf::accounts`]).

use aya::{Btf, BtfError};
use profiler_common::probe::sched::Gate;

use super::ProbeError;
use crate::{
    bpf::{
        BpfError,
        accounts::{Accounts, Ended, wait_for_programs},
        counters::CounterEvents,
        load::{Attached, Kernel},
    },
    perf::{clock::monotonic_ns, counters::Counters},
};

/// Programs and the tracepoints with types that they are attached to.
const TYPED: &[(&str, &str)] = &[
    (SWITCH, "sched_switch"),
    (WAKING, "sched_waking"),
    ("sched_wakeup", "sched_wakeup"),
    ("sched_wakeup_new", "sched_wakeup_new"),
    ("sched_migrate", "sched_migrate_task"),
    ("sched_exec", "sched_process_exec"),
    ("sched_rename", "task_rename"),
];

/// The program that accounts switches.
pub const SWITCH: &str = "sched_switch";

/// The one of those that counts what each thread wakes.
const WAKING: &str = "sched_waking";

/// Programs and the raw tracepoints that they are attached to.
const RAW: &[(&str, &str)] = &[
    ("sched_hardirq_entry", "irq_handler_entry"),
    ("sched_hardirq_exit", "irq_handler_exit"),
    ("sched_softirq_entry", "softirq_entry"),
    ("sched_softirq_exit", "softirq_exit"),
];

/// The same for the timer's interrupt of x86-64.
const RAW_TIMER: &[(&str, &str)] =
    &[("sched_hardirq_entry", "local_timer_entry"), ("sched_hardirq_exit", "local_timer_exit")];

/// The iterator that puts in the threads that exist at the start.
const ITERATOR: &str = "sched_seed";

/// Oldest kernel it works on, (major, minor).
pub const MINIMUM_KERNEL: (u32, u32) = (5, 8);

/// `doctor` checks that must pass.
pub const REQUIRES: &[&str] = &["bpf", "btf"];

/// Kernel hooks, for documents.
pub const HOOKS: &str = "BTF tracepoints: sched_switch, sched_waking, sched_wakeup, sched_wakeup_new, sched_migrate_task, \
sched_process_exec, task_rename; raw tracepoints: irq_handler_entry/exit, softirq_entry/exit, local_timer_entry/exit; \
task iterator";

/// Those of `TYPED` that are needed. `wakers`: what each thread wakes is counted.
fn typed(wakers: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    TYPED.iter().copied().filter(move |(program, _)| wakers || *program != WAKING)
}

/// The attached probe.
pub struct SchedProbe {
    attached: Vec<Attached>,
    /// What it yields.
    pub accounts: Accounts,
    /// Performance counters that are read at each switch.
    pub counters: Counters,
    counter_events: CounterEvents,
    start_ns: u64,
    /// What is not accounted on this kernel, and why.
    notes: Vec<String>,
}

impl SchedProbe {
    /// Loads the programs, unless they are: what takes most of the time to open it. `wakers`: what each thread wakes is counted.
    pub fn load(kernel: &mut Kernel, wakers: bool) -> Result<(), ProbeError> {
        if kernel.is_loaded(ITERATOR) {
            return Ok(());
        }
        let btf = Btf::from_sys_fs().map_err(|error: BtfError| ProbeError::KernelTypes(error.to_string()))?;
        for (program, tracepoint) in typed(wakers) {
            kernel.load_typed(program, tracepoint, &btf)?;
        }
        Ok(kernel.load_iterator(ITERATOR, "task", &btf)?)
    }

    /// Attaches the programs. Nothing is accounted yet. `wakers`: as above.
    pub fn open(kernel: &mut Kernel, counters: Counters, wakers: bool) -> Result<(Self, Ended), ProbeError> {
        Self::load(kernel, wakers)?;
        let (accounts, ended) = (Accounts::new(&mut kernel.ebpf)?, Ended::new(&mut kernel.ebpf)?);
        let mut counter_events = CounterEvents::new(&mut kernel.ebpf)?;
        for (cpu, index, event) in counters.events() {
            counter_events.set(cpu, index, event)?;
        }
        let mut attached = Vec::new();
        for &(program, tracepoint) in RAW {
            kernel.load_program(program)?;
            attached.push(kernel.attach(program, tracepoint)?);
        }
        let mut notes = Vec::new();
        if cfg!(target_arch = "x86_64") {
            match RAW_TIMER.iter().map(|&(program, name)| kernel.attach(program, name)).collect() {
                Ok::<Vec<_>, BpfError>(timer) => attached.extend(timer),
                Err(error) => {
                    notes.push(format!("time in the timer's interrupt counts as the threads' own: {error}"));
                }
            }
        }
        for (program, _) in typed(wakers) {
            attached.push(kernel.attach_typed(program)?);
        }
        Ok((Self { attached, accounts, counters, counter_events, start_ns: 0, notes }, ended))
    }

    /// Begins to account: from the time that is returned on (`CLOCK_MONOTONIC`, ns).
    pub fn enable(&mut self, kernel: &mut Kernel) -> Result<u64, ProbeError> {
        self.start_ns = monotonic_ns();
        self.accounts.set(Gate::Unseen, self.start_ns)?;
        self.accounts.set(Gate::Start, self.start_ns)?;
        kernel.iterate(ITERATOR)?;
        // From here on a thread without an account can only be one that there was no room for.
        self.accounts.set(Gate::Unseen, 0)?;
        Ok(self.start_ns)
    }

    /// Stops; gives the time up to which everything is accounted. What programs are doing at that moment they finish.
    pub fn disable(&mut self) -> Result<u64, ProbeError> {
        let end_ns = monotonic_ns();
        self.accounts.set(Gate::Start, 0)?;
        self.attached.clear();
        wait_for_programs();
        Ok(end_ns)
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.accounts.memory() + self.counter_events.memory()
    }

    /// What is not accounted on this kernel.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// When it began, `CLOCK_MONOTONIC`, ns.
    pub const fn start_ns(&self) -> u64 {
        self.start_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_name_every_hook() {
        for &(_, tracepoint) in TYPED.iter().chain(RAW).chain(RAW_TIMER) {
            let (name, _) = tracepoint.split_once("_exit").unwrap_or((tracepoint, ""));
            assert!(HOOKS.contains(name), "{tracepoint}");
        }
    }
}
