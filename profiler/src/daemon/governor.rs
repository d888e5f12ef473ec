//! Keeps the daemon within its budget: looks less closely before it is passed, and closely again when there is room.
//!
//! What is exact stays exact at every step: accounts of threads, with what they were blocked by, of calls and of sockets. What
//! changes is how many samples and how many stacks there are. Every window says at which rates it was made, so that windows can be
//! compared.

use std::time::Duration;

use profiler_common::tuning::{NO_STACKS, Tuning};

use crate::session::Closeness;

/// How closely is looked at a step.
struct Step {
    /// What the sampling rate is divided by.
    divide: u64,
    /// One in so many blocked times has its stack.
    blocked_every: u32,
    /// Most frames of a user stack; 0: as configured.
    depth: u32,
}

/// From as configured to as little as can be. Stacks of blocked times go first: there are thousands of them in a second where there
/// are tens of samples, which are what is looked at most.
const STEPS: [Step; 7] = [
    Step { divide: 1, blocked_every: 1, depth: 0 },
    Step { divide: 1, blocked_every: 4, depth: 0 },
    Step { divide: 1, blocked_every: 16, depth: 96 },
    Step { divide: 1, blocked_every: 128, depth: 64 },
    Step { divide: 1, blocked_every: NO_STACKS, depth: 64 },
    Step { divide: 2, blocked_every: NO_STACKS, depth: 48 },
    Step { divide: 8, blocked_every: NO_STACKS, depth: 24 },
];

/// Share of the budget above which less is looked at.
const HIGH: f64 = 0.9;
/// Share of the CPU time below which there is room for more. Of memory, most does not depend on the step: as long as it is not too
/// much, it is no reason to look at less.
const LOW: f64 = 0.72;
/// How much a window weighs against all before it, at least: what happens once a minute is in a mean of some.
const WEIGHT: f64 = 0.2;
/// Windows at a step before what they used is taken for what the step costs.
const SETTLED: u32 = 3;
/// Share of the budget above which that is not waited for, and one step is not enough.
const FAR: f64 = 1.5;
/// Windows with room, less those without, before more is looked at again.
const PATIENCE: u32 = 6;
/// The same at most: it doubles each time that a step back was too early, and halves each time that it was not.
const MOST_PATIENCE: u32 = 96;

/// What the daemon may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// CPU time, its eBPF programs' included, percent of all CPUs.
    pub cpu_percent: f64,
    /// Memory, the kernel's for it included, bytes.
    pub memory: u64,
}

/// What it used in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// CPU time, its eBPF programs' included, ns.
    pub cpu_ns: u64,
    /// CPU time that there was, of all CPUs, ns.
    pub of_ns: u64,
    /// Memory, the kernel's for it included, bytes.
    pub memory: u64,
}

impl Use {
    /// CPU time, percent of all CPUs.
    pub fn cpu_percent(&self) -> f64 {
        self.cpu_ns as f64 * 100.0 / self.of_ns.max(1) as f64
    }
}

/// Keeps the budget.
#[derive(Debug)]
pub struct Governor {
    budget: Budget,
    frequency_hz: u64,
    depth: u32,
    step: usize,
    changes: u64,
    /// Windows at this step, and their mean of CPU percent, the last ones first of all.
    windows: u32,
    mean: f64,
    quiet: u32,
    patience: u32,
    /// The last change was a step back.
    went_back: bool,
    why: Option<String>,
}

impl Governor {
    /// With what is configured. `depth`: most frames of a user stack.
    pub const fn new(budget: Budget, frequency_hz: u64, depth: u32) -> Self {
        Self {
            budget,
            frequency_hz,
            depth,
            step: 0,
            changes: 0,
            windows: 0,
            mean: 0.0,
            quiet: 0,
            patience: PATIENCE,
            went_back: false,
            why: None,
        }
    }

    /// Goes on with another configuration.
    pub const fn configure(&mut self, budget: Budget, frequency_hz: u64, depth: u32) {
        (self.budget, self.frequency_hz, self.depth) = (budget, frequency_hz, depth);
    }

    /// How closely to look.
    pub fn closeness(&self) -> Closeness {
        let step = &STEPS[self.step];
        let frequency_hz = if self.frequency_hz == 0 { 0 } else { (self.frequency_hz / step.divide).max(1) };
        let depth = if step.depth == 0 { self.depth } else { step.depth.min(self.depth) };
        Closeness {
            frequency_hz,
            tuning: Tuning { blocked_every: step.blocked_every, depth, ..Tuning::default() },
        }
    }

    /// The step; 0: as configured.
    pub const fn step(&self) -> usize {
        self.step
    }

    /// Changes so far.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Why it is where it is; `None`: as configured.
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref().filter(|_| self.step != 0)
    }

    /// Takes in what a window used. True if it is to be looked more or less closely from now on.
    pub fn window(&mut self, used: Use) -> bool {
        let percent = used.cpu_percent();
        self.windows = self.windows.saturating_add(1);
        self.mean += (percent - self.mean) * WEIGHT.max(1.0 / f64::from(self.windows));
        let mean = self.mean;
        let cpu = mean / self.budget.cpu_percent;
        let memory = used.memory as f64 / self.budget.memory.max(1) as f64;
        let of_cpu = format!("CPU time is {mean:.2} % of the machine's of {:.2} %", self.budget.cpu_percent);
        if cpu.max(memory) > HIGH {
            self.quiet = 0;
            if self.windows < SETTLED && cpu.max(memory) < FAR {
                return false;
            }
            if cpu >= memory {
                return self.down(cpu, &of_cpu);
            }
            let mb = |bytes: u64| bytes / 1_000_000;
            let of_memory = format!("memory is {} MB of {} MB", mb(used.memory), mb(self.budget.memory));
            return self.down(memory, &of_memory);
        }
        self.quiet = if cpu < LOW { self.quiet + 1 } else { self.quiet.saturating_sub(1) };
        if self.step == 0 || self.quiet < self.patience {
            return false;
        }
        if std::mem::replace(&mut self.went_back, true) {
            self.patience = (self.patience / 2).max(PATIENCE);
        }
        self.step -= 1;
        (self.changes, self.windows, self.quiet) = (self.changes + 1, 0, 0);
        self.why = Some(format!("less than configured, and more step by step: {of_cpu}"));
        true
    }

    fn down(&mut self, most: f64, what: &str) -> bool {
        if std::mem::take(&mut self.went_back) {
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
        }
        if self.step + 1 == STEPS.len() {
            self.why = Some(format!("less than configured, as little as can be, and still: {what}"));
            return false;
        }
        let steps = if most > FAR { 2 } else { 1 };
        self.step = (self.step + steps).min(STEPS.len() - 1);
        // What is measured next is of another step: it counts by itself.
        (self.changes, self.windows) = (self.changes + 1, 0);
        self.why = Some(format!("less than configured: {what}"));
        true
    }
}

/// Time of all CPUs in a window.
pub fn time_of(cpus: usize, window: Duration) -> u64 {
    let ns = window.as_nanos().saturating_mul(cpus as u128);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUDGET: Budget = Budget { cpu_percent: 1.0, memory: 150_000_000 };

    fn used(percent: f64, memory: u64) -> Use {
        Use { cpu_ns: (percent * 1e7) as u64, of_ns: 1_000_000_000, memory }
    }

    /// How many windows of that use it takes until something changes.
    fn windows(governor: &mut Governor, used: Use) -> u32 {
        1 + (0..100).take_while(|_| !governor.window(used)).count() as u32
    }

    #[test]
    fn within_the_budget_all_is_as_configured() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        for _ in 0..100 {
            assert!(!governor.window(used(0.8, 120_000_000)));
        }
        let closeness = governor.closeness();
        assert_eq!((closeness.frequency_hz, closeness.tuning.depth, governor.why()), (19, 127, None));
        assert_eq!(closeness.tuning.blocked_every, 1);
    }

    #[test]
    fn it_steps_down_before_the_budget_is_passed_and_recovers() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        assert_eq!(windows(&mut governor, used(0.95, 0)), SETTLED);
        assert_eq!((governor.step(), governor.changes()), (1, 1));
        assert!(governor.why().is_some_and(|why| why.contains("0.95 %")));
        assert_eq!(windows(&mut governor, used(0.3, 0)), PATIENCE);
        assert_eq!((governor.step(), governor.why()), (0, None));
        // Too early: it waits longer next time, until one was in time.
        assert_eq!([3.0, 1.2].map(|percent| windows(&mut governor, used(percent, 0))), [1, SETTLED]);
        assert_eq!(governor.step(), 3);
        let quiet = [(); 3].map(|()| windows(&mut governor, used(0.3, 0)));
        assert_eq!((quiet, governor.step()), ([2 * PATIENCE, 2 * PATIENCE, PATIENCE], 0));
    }

    #[test]
    fn what_one_window_uses_more_is_no_reason() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        for number in 0..100 {
            assert!(!governor.window(used(if number % 6 == 5 { 1.4 } else { 0.6 }, 0)), "{governor:?}");
        }
    }

    #[test]
    fn there_is_room_between_windows_that_use_more() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        windows(&mut governor, used(0.95, 0));
        let is_over = (0..4 * PATIENCE)
            .any(|number| governor.window(used(if number % 6 == 3 { 1.1 } else { 0.62 }, 0)));
        assert_eq!((is_over, governor.step()), (true, 0), "{governor:?}");
    }

    #[test]
    fn memory_counts_too() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        assert_eq!(windows(&mut governor, used(0.1, 140_000_000)), SETTLED);
        assert!(governor.why().is_some_and(|why| why.contains("140 MB of 150 MB")));
    }

    #[test]
    fn memory_that_is_within_the_budget_is_no_reason_to_look_at_less() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        windows(&mut governor, used(0.95, 0));
        assert_eq!((windows(&mut governor, used(0.1, 120_000_000)), governor.step()), (PATIENCE, 0));
    }

    #[test]
    fn at_the_last_step_it_says_that_it_is_not_enough() {
        let mut governor = Governor::new(BUDGET, 19, 127);
        for _ in 0..20 {
            governor.window(used(5.0, 0));
        }
        assert_eq!(governor.step(), STEPS.len() - 1);
        assert!(
            governor
                .why()
                .is_some_and(|why| why.contains("as little as can be, and still: CPU time is 5.00 %"))
        );
        let closeness = governor.closeness();
        assert_eq!((closeness.frequency_hz, closeness.tuning.blocked_every), (2, NO_STACKS));
    }

    #[test]
    fn what_is_off_stays_off() {
        let mut governor = Governor::new(BUDGET, 0, 16);
        governor.window(used(5.0, 0));
        assert_eq!((governor.closeness().frequency_hz, governor.closeness().tuning.depth), (0, 16));
    }

    proptest! {
        /// A cost that falls by half with each step settles: it does not go up and down for ever.
        #[test]
        fn it_settles(full in 0.1f64..20.0) {
            let mut governor = Governor::new(BUDGET, 100, 127);
            for _ in 0..2_000 {
                let cost = full / f64::from(1 << governor.step());
                governor.window(used(cost, 0));
            }
            let before = governor.changes();
            for _ in 0..100 {
                let cost = full / f64::from(1 << governor.step());
                governor.window(used(cost, 0));
            }
            prop_assert!(governor.changes() - before <= 3, "{} changes", governor.changes() - before);
        }
    }
}
