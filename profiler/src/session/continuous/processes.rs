//! Accounts of threads summed up by process.

use std::collections::{BTreeMap, HashMap};

use profiler_common::Comm;

use crate::{
    model::sched::Row,
    session::sched::account::{Account, Sum, ThreadKey},
};

/// What the threads of a process did in a window.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When its first thread was made, ns since boot; of one whose first thread ended before, the first that is left.
    pub start_ns: u64,
    /// Threads of it are there at the end of the window.
    pub is_alive: bool,
    /// The sum of its threads, with the process's name.
    pub row: Row,
}

impl Process {
    /// Whether one of its threads was on a CPU, or ended.
    pub const fn has_run(&self) -> bool {
        self.row.voluntary + self.row.involuntary + self.row.cpu_ns + self.row.ended != 0
    }
}

/// Sums of what was added to accounts since earlier ones. Threads of processes that had the same id, one after the other, are
/// told apart by when their first threads were made.
pub fn processes(
    alive: &[Account],
    ended: &[Account],
    earlier: &HashMap<ThreadKey, Account>,
) -> Vec<Process> {
    let mut by_pid: BTreeMap<u32, Vec<&Account>> = BTreeMap::new();
    for account in alive.iter().chain(ended) {
        by_pid.entry(account.pid).or_default().push(account);
    }
    let mut processes = Vec::with_capacity(by_pid.len());
    for (pid, mut threads) in by_pid {
        threads.sort_by_key(|account| (account.start_ns, account.tid != pid));
        // A first thread begins a process; what is before all of them is of the first one.
        let begins = |at: usize| threads[at].tid == pid || at == 0;
        let mut starts: Vec<usize> = (0..threads.len()).filter(|&at| begins(at)).collect();
        if starts.len() > 1 && threads[0].tid != pid {
            starts.remove(1);
        }
        let ends = starts.iter().skip(1).copied().chain([threads.len()]);
        for (start, end) in starts.iter().copied().zip(ends) {
            processes.push(process(pid, &threads[start..end], earlier));
        }
    }
    processes
}

fn process(pid: u32, threads: &[&Account], earlier: &HashMap<ThreadKey, Account>) -> Process {
    let leader = threads.iter().find(|account| account.tid == pid).or(threads.first());
    let mut sum = Sum::default();
    for account in threads {
        match earlier.get(&(pid, account.start_ns)) {
            Some(earlier) => sum.add(&account.since(earlier)),
            None => sum.add(account),
        }
    }
    Process {
        pid,
        start_ns: leader.map_or(0, |leader| leader.start_ns),
        is_alive: threads.iter().any(|account| !account.has_ended()),
        row: sum.row(Some(pid), None, leader.map_or(&Comm::default(), |leader| leader.comm()), &[]),
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::probe::sched::{State, Thread};

    use super::*;

    fn account(pid: u32, tid: u32, start_ns: u64, cpu_ns: u64, state: State) -> Account {
        let thread = Thread {
            tgid: pid,
            tid,
            start_ns,
            cpu_ns,
            since_ns: 10,
            state: state as u8,
            comm: *b"test\0\0\0\0\0\0\0\0\0\0\0\0",
            ..Thread::EMPTY
        };
        Account::close(&thread, &[], 10)
    }

    #[test]
    fn threads_are_summed_up_and_earlier_times_subtracted() {
        let alive = [account(7, 7, 100, 50, State::Blocked), account(7, 8, 120, 30, State::Blocked)];
        let ended = [account(7, 9, 130, 5, State::Ended)];
        let earlier = HashMap::from([((7, 100), account(7, 7, 100, 20, State::Blocked))]);
        let found = processes(&alive, &ended, &earlier);
        let [process] = &found[..] else { panic!("{found:?}") };
        assert_eq!((process.pid, process.start_ns, process.is_alive), (7, 100, true));
        assert_eq!((process.row.cpu_ns, process.row.threads, process.row.ended), (65, 3, 1));
        assert_eq!(process.row.comm, "test");
    }

    #[test]
    fn a_reused_id_is_two_processes() {
        let alive = [account(7, 7, 300, 1, State::Blocked)];
        let ended = [
            account(7, 7, 100, 10, State::Ended),
            account(7, 9, 150, 20, State::Ended),
            account(7, 8, 310, 2, State::Ended),
        ];
        let found = processes(&alive, &ended, &HashMap::new());
        let of: Vec<_> = found.iter().map(|p| (p.start_ns, p.is_alive, p.row.cpu_ns)).collect();
        assert_eq!(of, [(100, false, 30), (300, true, 3)]);
    }

    #[test]
    fn a_process_without_its_first_thread_is_one() {
        let alive = [account(7, 9, 150, 20, State::Blocked), account(7, 8, 120, 1, State::Blocked)];
        let found = processes(&alive, &[], &HashMap::new());
        assert_eq!(found.iter().map(|p| (p.start_ns, p.row.cpu_ns)).collect::<Vec<_>>(), [(120, 21)]);
        // Its first thread was made before the others, and is there as one that ended.
        let found = processes(&alive, &[account(7, 7, 100, 5, State::Ended)], &HashMap::new());
        assert_eq!(found.iter().map(|p| (p.start_ns, p.row.cpu_ns)).collect::<Vec<_>>(), [(100, 26)]);
    }
}
