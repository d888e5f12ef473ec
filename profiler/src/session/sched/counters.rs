//! The performance counters of an accounting: started, and read with the accounts of the CPUs.

use std::collections::HashMap;

use super::{AccountOptions, SessionError, account::CpuNow};
use crate::{
    host::cpus as host_cpus,
    perf::counters::{Counters, DEFAULT},
    probe::sched::SchedProbe,
};

/// The CPUs as they are, by number; and how many of the accounts were being changed each time that they were read.
pub fn read_cpus(probe: &SchedProbe, start_ns: u64) -> Result<(Vec<CpuNow>, u64), SessionError> {
    // First: if a CPU switches in between, its account tells.
    let counters: HashMap<u32, _> =
        probe.counters.cpus().map(|cpu| (cpu, probe.counters.read(cpu))).collect();
    let (accounts, torn) = probe.accounts.read_cpus(start_ns)?;
    let now = |(cpu, account)| CpuNow { account, counters: counters.get(&cpu).copied().unwrap_or_default() };
    Ok(((0..).zip(accounts).map(now).collect(), torn))
}

/// Starts the performance counters.
pub fn start(options: &AccountOptions, notes: &mut Vec<String>) -> Result<Counters, SessionError> {
    let cpus = host_cpus::online();
    if let Some(names) = &options.counters {
        return Counters::open(names, &cpus).map_err(SessionError::Counter);
    }
    let (counters, errors) = Counters::open_available(&DEFAULT, &cpus);
    notes.extend(errors.iter().map(|error| format!("{error}: not counted for threads")));
    Ok(counters)
}
