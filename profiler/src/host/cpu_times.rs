//! How the kernel splits the time of each CPU: /proc/stat (fs/proc/stat.c), in ticks of USER_HZ.

use std::{fs, io};

/// Ticks of one CPU since the host's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// User mode, with nice; guests are in it.
    pub user: u64,
    /// Kernel mode.
    pub system: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
}

/// Ticks per second.
pub fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// The CPUs that are online, by number.
///
/// # Errors
/// Those of reading the file.
pub fn read() -> io::Result<Vec<(u32, CpuTimes)>> {
    Ok(parse(&fs::read_to_string("/proc/stat")?))
}

/// CPU time that the hypervisor took from all CPUs since the host's start, ns; 0 if it cannot be read.
pub fn stolen_ns() -> u64 {
    let ticks: u64 = read().unwrap_or_default().iter().map(|(_, times)| times.steal).sum();
    ticks.saturating_mul(1_000_000_000 / ticks_per_second())
}

/// Lines `cpuN user nice system idle iowait irq softirq steal guest guest_nice`.
fn parse(text: &str) -> Vec<(u32, CpuTimes)> {
    let line = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let cpu = words.next()?.parse().ok()?;
        let ticks: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        // "cpu  1 2" is the sum of all: its first word is a number too, but a space stands before it.
        let is_one = !line.starts_with("cpu ");
        is_one.then(|| (cpu, CpuTimes { user: at(0) + at(1), system: at(2), steal: at(7) }))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpu_has_its_line() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu12 5 0 6\nintr 5\n";
        let expected =
            [(0, CpuTimes { user: 3, system: 3, steal: 8 }), (12, CpuTimes { user: 5, system: 6, steal: 0 })];
        assert_eq!(parse(text), expected);
    }
}
