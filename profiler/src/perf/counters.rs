//! Performance counters that count and never interrupt: each counts all that runs on one CPU.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use perf_event_open_sys::bindings::{
    PERF_COUNT_HW_BRANCH_INSTRUCTIONS, PERF_COUNT_HW_BRANCH_MISSES, PERF_COUNT_HW_CACHE_MISSES,
    PERF_COUNT_HW_CACHE_REFERENCES, PERF_COUNT_HW_CPU_CYCLES, PERF_COUNT_HW_INSTRUCTIONS,
    PERF_COUNT_SW_CPU_CLOCK, PERF_COUNT_SW_PAGE_FAULTS, PERF_COUNT_SW_PAGE_FAULTS_MAJ,
    PERF_COUNT_SW_PAGE_FAULTS_MIN, PERF_TYPE_HARDWARE, PERF_TYPE_SOFTWARE,
};
use profiler_common::probe::sched::COUNTERS;
use rustix::io::Errno;

use super::sampler::{attr, open};

/// Something that can be counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Counter {
    /// As perf names it.
    pub name: &'static str,
    kind: u32,
    config: u32,
}

const fn hardware(name: &'static str, config: u32) -> Counter {
    Counter { name, kind: PERF_TYPE_HARDWARE, config }
}

const fn software(name: &'static str, config: u32) -> Counter {
    Counter { name, kind: PERF_TYPE_SOFTWARE, config }
}

/// Processor cycles.
pub const CYCLES: &str = "cycles";

/// Instructions that were executed.
pub const INSTRUCTIONS: &str = "instructions";

/// All that can be asked for.
pub const ALL: [Counter; 10] = [
    hardware(CYCLES, PERF_COUNT_HW_CPU_CYCLES),
    hardware(INSTRUCTIONS, PERF_COUNT_HW_INSTRUCTIONS),
    hardware("cache-references", PERF_COUNT_HW_CACHE_REFERENCES),
    hardware("cache-misses", PERF_COUNT_HW_CACHE_MISSES),
    hardware("branches", PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    hardware("branch-misses", PERF_COUNT_HW_BRANCH_MISSES),
    software("cpu-clock", PERF_COUNT_SW_CPU_CLOCK),
    software("page-faults", PERF_COUNT_SW_PAGE_FAULTS),
    software(MINOR_FAULTS, PERF_COUNT_SW_PAGE_FAULTS_MIN),
    software(MAJOR_FAULTS, PERF_COUNT_SW_PAGE_FAULTS_MAJ),
];

/// Page faults that needed no disk.
pub const MINOR_FAULTS: &str = "minor-faults";

/// Page faults that did.
pub const MAJOR_FAULTS: &str = "major-faults";

/// Those that are counted where the machine can, if nothing is said.
pub const DEFAULT: [&str; 2] = [CYCLES, INSTRUCTIONS];

/// Why a counter does not count.
#[derive(Debug, thiserror::Error)]
pub enum CounterError {
    /// The processor, or the virtual machine, has none such.
    #[error("this machine has no counter for {0}")]
    Absent(&'static str),
    /// It has, and it cannot be used.
    #[error("{name} cannot be counted on CPU {cpu}: {source}")]
    Refused {
        /// Its name.
        name: &'static str,
        /// The CPU.
        cpu: u32,
        /// What perf_event_open(2) says.
        source: io::Error,
    },
}

/// Counters that count.
#[derive(Default)]
pub struct Counters {
    names: Vec<&'static str>,
    /// By CPU, in the order of the names.
    events: BTreeMap<u32, Vec<OwnedFd>>,
}

impl Counters {
    /// Starts the counters of these names on the CPUs; at most [`COUNTERS`] of them. A CPU that has gone offline meanwhile
    /// is left out.
    ///
    /// # Errors
    /// The first that does not count.
    pub fn open(names: &[&str], cpus: &[u32]) -> Result<Self, CounterError> {
        let mut counters = Self::default();
        for counter in ALL.iter().filter(|counter| names.contains(&counter.name)).take(COUNTERS) {
            counters.add(counter, cpus)?;
        }
        Ok(counters)
    }

    /// Starts those that the machine has of these names; with why the others do not count.
    pub fn open_available(names: &[&str], cpus: &[u32]) -> (Self, Vec<CounterError>) {
        let (mut counters, mut errors) = (Self::default(), Vec::new());
        for counter in ALL.iter().filter(|counter| names.contains(&counter.name)).take(COUNTERS) {
            errors.extend(counters.add(counter, cpus).err());
        }
        (counters, errors)
    }

    fn add(&mut self, counter: &Counter, cpus: &[u32]) -> Result<(), CounterError> {
        let mut opened = Vec::new();
        for &cpu in cpus {
            let mut attr = attr();
            (attr.type_, attr.config) = (counter.kind, counter.config.into());
            attr.set_disabled(0);
            // Always, or not at all: never for a part of the time that would have to be extrapolated.
            attr.set_pinned(1);
            match open(&mut attr, cpu) {
                Ok(event) => opened.push((cpu, event)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NODEV) => {}
                    // As armv8 and x86 say it of an event that the processor does not have; and perf itself without a PMU.
                    Some(Errno::NOENT | Errno::OPNOTSUPP) => return Err(CounterError::Absent(counter.name)),
                    _ => return Err(CounterError::Refused { name: counter.name, cpu, source: error }),
                },
            }
        }
        self.names.push(counter.name);
        for (cpu, event) in opened {
            self.events.entry(cpu).or_default().push(event);
        }
        // A CPU that went while the counters were started has not all of them.
        let count = self.names.len();
        self.events.retain(|_, events| events.len() == count);
        Ok(())
    }

    /// What is counted, in order.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// The events: CPU, index of the counter, event.
    pub fn events(&self) -> impl Iterator<Item = (u32, usize, BorrowedFd<'_>)> {
        self.events.iter().flat_map(|(&cpu, events)| {
            events.iter().enumerate().map(move |(i, event)| (cpu, i, event.as_fd()))
        })
    }

    /// The CPUs.
    pub fn cpus(&self) -> impl Iterator<Item = u32> {
        self.events.keys().copied()
    }

    /// What the counters of a CPU have counted so far; 0 for one that cannot be read.
    pub fn read(&self, cpu: u32) -> [u64; COUNTERS] {
        let mut values = [0; COUNTERS];
        let events = self.events.get(&cpu).map_or(&[][..], Vec::as_slice);
        for (value, event) in values.iter_mut().zip(events) {
            let mut word = [0; 8];
            // `read_format` 0: the value alone. Nothing at all is read of a pinned event that cannot count.
            if rustix::io::read(event, &mut word) == Ok(8) {
                *value = u64::from_ne_bytes(word);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different() {
        for (i, counter) in ALL.iter().enumerate() {
            assert!(ALL.iter().skip(i + 1).all(|other| other.name != counter.name), "{}", counter.name);
        }
    }

    #[test]
    fn nothing_is_counted_if_nothing_is_asked_for() {
        let counters = Counters::open(&[], &[0]).unwrap();
        assert_eq!((counters.names().len(), counters.events().count()), (0, 0));
        assert_eq!(counters.read(0), [0; COUNTERS]);
    }
}
