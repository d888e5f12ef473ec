//! Accounts as the kernel keeps them, closed at a moment, subtracted from each other, and summed up to rows.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use profiler_common::{
    Comm,
    probe::sched::{COUNTERS, Cpu, IN_CGROUP, State, Thread, UNINTERRUPTIBLE, wait_bucket_bounds},
    sched::cause::Cause,
};

use crate::{
    model::{name::clean, sched::Row},
    perf::counters::{CYCLES, INSTRUCTIONS},
};

/// Counts by bucket, ascending, without the empty ones.
type Buckets<N> = Box<[(u8, N)]>;

/// What a thread did until some moment. Smaller than the kernel's account: most causes and buckets are empty.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Tells threads apart that had the same id.
    pub start_ns: u64,
    comm: Comm,
    ended: bool,
    in_cgroup: bool,
    wall_ns: u64,
    cpu_ns: u64,
    irq_ns: u64,
    run_queue_ns: u64,
    run_queue_max_ns: u64,
    run_queue_count: u64,
    unknown_ns: u64,
    uninterruptible_ns: u64,
    switches: u64,
    voluntary: u64,
    migrations: u64,
    wakeups_got: u64,
    wakeups_given: u64,
    blocked: Buckets<u64>,
    counters: Buckets<u64>,
    waits: Buckets<u32>,
}

/// A CPU at a moment.
#[derive(Clone, Copy)]
pub struct CpuNow {
    /// Its account.
    pub account: Cpu,
    /// Its performance counters, read before the account.
    pub counters: [u64; COUNTERS],
}

/// Whether the last that was seen of a thread is that it came to a CPU.
pub const fn is_running(thread: &Thread) -> bool {
    thread.state == State::Running as u8
}

/// The CPU of such a thread: it came to it at that CPU's last switch. `None`: it must have left.
pub fn its_cpu<'a>(thread: &Thread, cpus: &'a [CpuNow]) -> Option<&'a CpuNow> {
    cpus.iter().find(|CpuNow { account: cpu, .. }| {
        let is_first = cpu.since_ns == 0 && thread.switches == 0;
        cpu.idle == 0 && (cpu.since_ns == thread.since_ns || is_first)
    })
}

impl Account {
    /// Closes the account at `end_ns` (`CLOCK_MONOTONIC`): what the thread is doing is taken to go on until then. `cpus`
    /// tell whether a thread is running as the last switch seen of it says, and how much of its time interrupts took; if
    /// none does, it was not seen to leave, and what it did since is unknown.
    pub fn close(thread: &Thread, cpus: &[CpuNow], end_ns: u64) -> Self {
        let rest =
            if thread.state == State::Ended as u8 { 0 } else { end_ns.saturating_sub(thread.since_ns) };
        let (mut blocked, mut uninterruptible_ns) = (thread.blocked_ns, thread.uninterruptible_ns);
        let (mut cpu_ns, mut irq_ns, mut run_queue_ns) = (thread.cpu_ns, thread.irq_ns, thread.run_queue_ns);
        let (mut unknown_ns, mut counters) = (thread.unknown_ns, thread.counters);
        if is_running(thread) {
            if let Some(CpuNow { account: cpu, counters: now }) = its_cpu(thread, cpus) {
                for ((sum, now), at) in counters.iter_mut().zip(now).zip(cpu.counters_at) {
                    // A switch since they were read, or `NOT_READ`: nothing.
                    *sum += now.saturating_sub(at);
                }
                let irq = (cpu.hardirq_ns + cpu.softirq_ns).saturating_sub(cpu.irq_at_ns).min(rest);
                irq_ns += irq;
                cpu_ns += rest - irq;
            } else {
                unknown_ns += rest;
            }
        } else if thread.state == State::Runnable as u8 {
            run_queue_ns += rest;
        } else if let Some(sum) = blocked.get_mut(usize::from(thread.cause)) {
            *sum += rest;
            uninterruptible_ns += if thread.flags & UNINTERRUPTIBLE != 0 { rest } else { 0 };
        }
        Self {
            pid: thread.tgid,
            tid: thread.tid,
            start_ns: thread.start_ns,
            comm: thread.comm,
            ended: thread.state == State::Ended as u8,
            in_cgroup: thread.flags & IN_CGROUP != 0,
            wall_ns: thread.since_ns.saturating_sub(thread.born_ns) + rest,
            cpu_ns,
            irq_ns,
            run_queue_ns,
            run_queue_max_ns: thread.run_queue_max_ns,
            run_queue_count: thread.run_queue_count,
            unknown_ns,
            uninterruptible_ns,
            switches: thread.switches,
            voluntary: thread.voluntary_after.saturating_sub(thread.voluntary_before),
            migrations: thread.migrations,
            wakeups_got: thread.wakeups_got,
            wakeups_given: thread.wakeups_given,
            blocked: occupied(&blocked),
            counters: occupied(&counters),
            waits: occupied(&thread.waits),
        }
    }

    /// Whether the thread has ended.
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// The thread's name.
    pub const fn comm(&self) -> &Comm {
        &self.comm
    }

    /// Whether the thread was in the control group that was asked for.
    pub const fn is_in_cgroup(&self) -> bool {
        self.in_cgroup
    }

    /// What was added since an earlier account of the same thread.
    pub fn since(&self, earlier: &Self) -> Self {
        let waits = subtract(&self.waits, &earlier.waits, u32::saturating_sub);
        // The longest of a part of the waits is not known better than its bucket.
        let longest = waits.last().map_or(0, |&(bucket, _)| wait_bucket_bounds(bucket.into()).1);
        Self {
            comm: self.comm,
            wall_ns: self.wall_ns.saturating_sub(earlier.wall_ns),
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            irq_ns: self.irq_ns.saturating_sub(earlier.irq_ns),
            run_queue_ns: self.run_queue_ns.saturating_sub(earlier.run_queue_ns),
            run_queue_max_ns: self.run_queue_max_ns.min(longest),
            run_queue_count: self.run_queue_count.saturating_sub(earlier.run_queue_count),
            unknown_ns: self.unknown_ns.saturating_sub(earlier.unknown_ns),
            uninterruptible_ns: self.uninterruptible_ns.saturating_sub(earlier.uninterruptible_ns),
            switches: self.switches.saturating_sub(earlier.switches),
            voluntary: self.voluntary.saturating_sub(earlier.voluntary),
            migrations: self.migrations.saturating_sub(earlier.migrations),
            wakeups_got: self.wakeups_got.saturating_sub(earlier.wakeups_got),
            wakeups_given: self.wakeups_given.saturating_sub(earlier.wakeups_given),
            blocked: subtract(&self.blocked, &earlier.blocked, u64::saturating_sub),
            counters: subtract(&self.counters, &earlier.counters, u64::saturating_sub),
            waits,
            ..*self
        }
    }
}

fn occupied<N: Copy + PartialEq + Default>(counts: &[N]) -> Buckets<N> {
    let indexed = counts.iter().enumerate().filter(|(_, count)| **count != N::default());
    indexed.map(|(index, &count)| (index as u8, count)).collect()
}

fn subtract<N: Copy + PartialEq + Default>(
    now: &[(u8, N)],
    before: &[(u8, N)],
    minus: fn(N, N) -> N,
) -> Buckets<N> {
    let earlier = |index| before.iter().find(|(other, _)| *other == index).map_or(N::default(), |&(_, n)| n);
    let left = now.iter().map(|&(index, count)| (index, minus(count, earlier(index))));
    left.filter(|(_, count)| *count != N::default()).collect()
}

/// A sum of accounts that becomes a row.
#[derive(Default)]
pub struct Sum {
    row: Row,
    switches: u64,
    blocked: BTreeMap<u8, u64>,
    counters: [u64; COUNTERS],
    waits: BTreeMap<u8, u64>,
}

impl Sum {
    /// Adds an account.
    pub fn add(&mut self, account: &Account) {
        let row = &mut self.row;
        row.threads += 1;
        row.ended += u64::from(account.ended);
        row.wall_ns += account.wall_ns;
        row.cpu_ns += account.cpu_ns;
        row.irq_ns += account.irq_ns;
        row.run_queue_ns += account.run_queue_ns;
        row.run_queue_count += account.run_queue_count;
        row.run_queue_max_ns = row.run_queue_max_ns.max(account.run_queue_max_ns);
        row.unknown_ns += account.unknown_ns;
        row.uninterruptible_ns += account.uninterruptible_ns;
        row.voluntary += account.voluntary;
        row.migrations += account.migrations;
        row.wakeups_got += account.wakeups_got;
        row.wakeups_given += account.wakeups_given;
        self.switches += account.switches;
        for &(cause, ns) in &account.blocked {
            row.blocked_ns += ns;
            *self.blocked.entry(cause).or_default() += ns;
        }
        for &(index, count) in &account.counters {
            if let Some(sum) = self.counters.get_mut(usize::from(index)) {
                *sum += count;
            }
        }
        for &(bucket, count) in &account.waits {
            *self.waits.entry(bucket).or_default() += u64::from(count);
        }
    }

    /// Waits that are in no bucket, because it was full.
    pub fn waits_not_in_buckets(&self) -> u64 {
        self.row.run_queue_count.saturating_sub(self.waits.values().sum())
    }

    /// The row of a thread or of a process. `counters`: what was counted.
    pub fn row(self, pid: Option<u32>, tid: Option<u32>, comm: &Comm, counters: &[&'static str]) -> Row {
        let (p50, p99) = (self.percentile(50), self.percentile(99));
        let mut row = self.row;
        let len = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        row.comm = clean(&comm[..len]);
        (row.pid, row.tid) = (pid, tid);
        row.blocked =
            self.blocked.iter().map(|(&cause, &ns)| (Cause::from_number(cause).name(), ns)).collect();
        row.counters = counters.iter().copied().zip(self.counters).collect();
        row.cpi = match (row.counters.get(CYCLES), row.counters.get(INSTRUCTIONS)) {
            (Some(cycles), Some(instructions)) if instructions != 0 => {
                Some(cycles as f64 / instructions as f64)
            }
            _ => None,
        };
        row.involuntary = self.switches.saturating_sub(row.voluntary);
        row.run_queue_avg_ns = row.run_queue_ns.checked_div(row.run_queue_count).unwrap_or(0);
        // A bucket's middle can lie above the longest wait.
        row.run_queue_p50_ns = p50.min(row.run_queue_max_ns);
        row.run_queue_p99_ns = p99.min(row.run_queue_max_ns);
        row
    }

    /// The middle of the bucket that the `percent`-th percentile is in.
    fn percentile(&self, percent: u64) -> u64 {
        let total: u64 = self.waits.values().sum();
        let rank = (total * percent).div_ceil(100);
        let mut seen = 0;
        for (&bucket, &count) in &self.waits {
            seen += count;
            if seen >= rank {
                let (lower, upper) = wait_bucket_bounds(bucket.into());
                return lower + (upper - lower) / 2;
            }
        }
        0
    }
}

/// Key of a thread that stays the same while it executes programs: process id and start time.
pub type ThreadKey = (u32, u64);

/// Rows of what was added to accounts since earlier ones: each process, then its threads. Also how many waits are missing in
/// histograms. `counters`: what was counted.
pub fn rows<'a>(
    accounts: impl Iterator<Item = &'a Account>,
    earlier: &HashMap<ThreadKey, Account>,
    counters: &[&'static str],
) -> (Vec<Row>, u64) {
    let mut processes: BTreeMap<u32, Vec<&Account>> = BTreeMap::new();
    for account in accounts {
        processes.entry(account.pid).or_default().push(account);
    }
    let threads: usize = processes.values().map(Vec::len).sum();
    let mut rows = Vec::with_capacity(threads + processes.len());
    let mut missing = 0;
    for (pid, mut threads) in processes {
        threads.sort_by_key(|account| (account.tid, account.start_ns));
        let leader = threads.iter().rev().find(|account| account.tid == pid).or(threads.first());
        let comm = leader.map(|account| account.comm).unwrap_or_default();
        let (mut whole, place) = (Sum::default(), rows.len());
        rows.push(Row::default());
        for account in threads {
            let added = match earlier.get(&(pid, account.start_ns)) {
                Some(earlier) => Cow::Owned(account.since(earlier)),
                None => Cow::Borrowed(account),
            };
            let mut one = Sum::default();
            one.add(&added);
            whole.add(&added);
            rows.push(one.row(Some(pid), Some(account.tid), &account.comm, counters));
        }
        missing += whole.waits_not_in_buckets();
        rows[place] = whole.row(Some(pid), None, &comm, counters);
    }
    (rows, missing)
}

#[cfg(test)]
mod tests {
    use profiler_common::probe::sched::NOT_READ;

    use super::*;

    fn thread() -> Thread {
        let mut thread = Thread {
            born_ns: 1_000,
            since_ns: 2_000,
            cpu_ns: 400,
            irq_ns: 100,
            run_queue_ns: 200,
            run_queue_count: 2,
            run_queue_max_ns: 150,
            switches: 3,
            voluntary_before: 10,
            voluntary_after: 12,
            tgid: 7,
            tid: 8,
            ..Thread::EMPTY
        };
        thread.blocked_ns[Cause::Futex as usize] = 300;
        thread.counters = [200, 100, 0, 0];
        thread.waits[0] = 1;
        thread.waits[2] = 1;
        assert!(thread.adds_up());
        thread
    }

    fn row_of(thread: &Thread, cpus: &[CpuNow]) -> Row {
        let mut sum = Sum::default();
        sum.add(&Account::close(thread, cpus, 2_500));
        sum.row(Some(7), Some(8), &thread.comm, &[CYCLES, INSTRUCTIONS])
    }

    #[test]
    fn the_state_at_the_end_goes_on_until_then() {
        let cpu = Cpu {
            since_ns: 2_000,
            hardirq_ns: 60,
            irq_at_ns: 20,
            counters_at: [1_000, NOT_READ, 5_000, 0],
            ..profiler_common::probe::sched::CPU_EMPTY
        };
        let cpu = CpuNow { account: cpu, counters: [1_300, 70, 4_000, 0] };
        let running = row_of(&Thread { state: State::Running as u8, ..thread() }, &[cpu]);
        assert_eq!((running.cpu_ns, running.irq_ns), (400 + 460, 100 + 40));
        let counters: Vec<_> = running.counters.iter().collect();
        assert_eq!((counters, running.cpi), (vec![(CYCLES, 500), (INSTRUCTIONS, 100)], Some(5.0)));
        let elsewhere = row_of(&Thread { state: State::Running as u8, ..thread() }, &[]);
        assert_eq!((elsewhere.cpu_ns, elsewhere.unknown_ns), (400, 500), "it was not seen to leave");
        let runnable = row_of(&Thread { state: State::Runnable as u8, ..thread() }, &[cpu]);
        assert_eq!(runnable.run_queue_ns, 700);
        let blocked = Thread {
            state: State::Blocked as u8,
            cause: Cause::Disk as u8,
            flags: UNINTERRUPTIBLE,
            ..thread()
        };
        let blocked = row_of(&blocked, &[cpu]);
        assert_eq!(
            (blocked.blocked.get("disk"), blocked.blocked.get("futex"), blocked.uninterruptible_ns),
            (Some(500), Some(300), 500)
        );
        for row in [&running, &runnable, &blocked] {
            assert_eq!(row.cpu_ns + row.irq_ns + row.run_queue_ns + row.blocked_ns, row.wall_ns);
            assert_eq!((row.wall_ns, row.voluntary, row.involuntary), (1_500, 2, 1));
        }
        let ended = row_of(&Thread { state: State::Ended as u8, ..thread() }, &[]);
        assert_eq!((ended.wall_ns, ended.ended), (1_000, 1));
    }

    #[test]
    fn a_span_is_the_difference_of_two_accounts() {
        let earlier = Account::close(&thread(), &[], 2_000);
        let mut later =
            Thread { since_ns: 3_000, cpu_ns: 1_200, run_queue_ns: 400, run_queue_count: 3, ..thread() };
        later.waits[2] = 2;
        let span = Account::close(&later, &[], 3_000).since(&earlier);
        assert_eq!((span.wall_ns, span.cpu_ns, span.run_queue_ns), (1_000, 800, 200));
        assert_eq!((&*span.waits, &*span.blocked), (&[(2u8, 1u32)][..], &[][..]));
    }

    #[test]
    fn rows_are_what_was_added() {
        let earlier = HashMap::from([((7, 0), Account::close(&thread(), &[], 2_000))]);
        let mut later = Thread { since_ns: 3_000, cpu_ns: 1_400, ..thread() };
        later.counters[0] += 77;
        let accounts = [Account::close(&later, &[], 3_000)];
        let (rows, _) = rows(accounts.iter(), &earlier, &[CYCLES]);
        let added: Vec<_> = rows.iter().map(|row| (row.cpu_ns, row.counters.get(CYCLES))).collect();
        assert_eq!(added, [(1_000, Some(77)); 2]);
    }

    #[test]
    fn percentiles_are_in_the_right_bucket() {
        let mut sum = Sum::default();
        let mut thread = thread();
        thread.waits = [0; _];
        thread.waits[10] = 98;
        thread.waits[50] = 2;
        (thread.run_queue_count, thread.run_queue_max_ns) = (100, u64::MAX);
        sum.add(&Account::close(&thread, &[], 2_000));
        let row = sum.row(None, None, &thread.comm, &[]);
        let middle = |bucket| (wait_bucket_bounds(bucket).0 + wait_bucket_bounds(bucket).1) / 2;
        assert_eq!((row.run_queue_p50_ns, row.run_queue_p99_ns), (middle(10), middle(50)));
    }

    #[test]
    fn a_process_is_the_sum_of_its_threads() {
        let other = Thread { tid: 7, comm: *b"leader\0\0\0\0\0\0\0\0\0\0", ..thread() };
        let accounts = [Account::close(&thread(), &[], 2_000), Account::close(&other, &[], 2_000)];
        let (rows, missing) = rows(accounts.iter(), &HashMap::new(), &[]);
        assert_eq!(rows.iter().map(|row| row.tid).collect::<Vec<_>>(), [None, Some(7), Some(8)]);
        assert_eq!((rows[0].cpu_ns, rows[0].threads, rows[0].comm.as_str(), missing), (800, 2, "leader", 0));
    }
}
