//! Accounts of calls summed up to what rows are about, subtracted from each other, and made rows.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use profiler_common::{
    Comm,
    probe::syscalls::{COMPAT, Caller, Other, other_number, other_place},
};

use super::{
    super::histogram::{merge, more, percentile, range, ranges},
    called::{self, Called},
};
use crate::{
    bpf::calls::CallAccount,
    host::syscalls::{self, Abi, Transfer},
    model::{
        name::{clean, clean_c},
        syscalls::{By, Row},
    },
};

/// Sums that are kept apart, some 300 bytes each; calls of threads that ended beyond it are summed up by number.
const MAX_KEPT: usize = 65_536;

/// What a sum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A call, of a process or thread (id, thread id, when it was made) or of all.
    Call {
        /// Whose.
        of: Option<(u32, Option<u32>, u64)>,
        /// The number.
        number: u32,
    },
    /// A call of processes that ended and are not kept apart.
    Ended {
        /// The number.
        number: u32,
    },
    /// Calls without account of their own.
    Other {
        /// What [`other_number`] takes.
        place: u32,
    },
}

impl Key {
    /// Which call.
    fn number(self) -> called::Number {
        match self {
            Self::Call { number, .. } | Self::Ended { number } => Some(Abi::of(number)),
            Self::Other { place } => other_number(place).0.map(|number| (self.abi(), number)),
        }
    }

    fn abi(self) -> Abi {
        let number = match self {
            Self::Call { number, .. } | Self::Ended { number } => number,
            Self::Other { place } if other_number(place).1 => COMPAT,
            Self::Other { .. } => 0,
        };
        Abi::of(number).0
    }
}

/// What a sum says. Times are ns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    comm: Comm,
    count: u64,
    returned: u64,
    errors: u64,
    total_ns: u64,
    max_ns: u64,
    off_ns: u64,
    irq_ns: u64,
    /// Sum of what the calls returned.
    bytes: u64,
    /// Time on a CPU, without interrupts, in calls that did not return.
    unreturned_cpu_ns: u64,
    in_progress: u64,
    in_progress_ns: u64,
    /// By bucket, ascending.
    latencies: Vec<(u16, u64)>,
    /// By error number, ascending.
    errno: Vec<(u32, u64)>,
}

impl Sum {
    fn add_account(&mut self, account: &CallAccount) {
        let call = &account.call;
        self.count += call.count;
        self.returned += call.returned;
        self.errors += call.errors;
        self.total_ns += call.total_ns;
        self.max_ns = self.max_ns.max(call.max_ns);
        self.off_ns += call.off_ns;
        self.irq_ns += call.irq_ns;
        self.bytes = self.bytes.wrapping_add(call.bytes);
        merge(&mut self.latencies, account.latencies.iter().map(|&(bucket, n)| (bucket, n.into())));
        merge(&mut self.errno, account.errors.iter().copied());
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.returned += other.returned;
        self.errors += other.errors;
        self.total_ns += other.total_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.off_ns += other.off_ns;
        self.irq_ns += other.irq_ns;
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.unreturned_cpu_ns += other.unreturned_cpu_ns;
        self.in_progress += other.in_progress;
        self.in_progress_ns += other.in_progress_ns;
        merge(&mut self.latencies, other.latencies.iter().copied());
        merge(&mut self.errno, other.errno.iter().copied());
    }

    /// Adds another one, which gives the name if there is none.
    fn add_named(&mut self, other: &Self) {
        self.add(other);
        if self.comm == [0; _] {
            self.comm = other.comm;
        }
    }

    /// What was added since an earlier sum of the same, if anything was or a call goes on.
    fn added_since(&self, earlier: Option<&Self>) -> Option<Cow<'_, Self>> {
        let none = (0, 0);
        let (count, returned) = earlier.map_or(none, |earlier| (earlier.count, earlier.returned));
        let is_more = self.count > count || self.returned > returned || self.in_progress != 0;
        is_more.then(|| earlier.map_or(Cow::Borrowed(self), |earlier| Cow::Owned(self.since(earlier))))
    }

    /// What was added since an earlier sum of the same. The longest call since then is known if it is the longest of all,
    /// else only its bucket.
    fn since(&self, earlier: &Self) -> Self {
        let latencies = more(&self.latencies, &earlier.latencies);
        let last = latencies.last().map_or(0, |&(bucket, _)| range(bucket).1);
        Self {
            comm: self.comm,
            count: self.count.saturating_sub(earlier.count),
            returned: self.returned.saturating_sub(earlier.returned),
            errors: self.errors.saturating_sub(earlier.errors),
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
            max_ns: if self.max_ns > earlier.max_ns { self.max_ns } else { last.min(self.max_ns) },
            off_ns: self.off_ns.saturating_sub(earlier.off_ns),
            irq_ns: self.irq_ns.saturating_sub(earlier.irq_ns),
            bytes: self.bytes.wrapping_sub(earlier.bytes),
            unreturned_cpu_ns: self.unreturned_cpu_ns.saturating_sub(earlier.unreturned_cpu_ns),
            in_progress: self.in_progress,
            in_progress_ns: self.in_progress_ns,
            latencies,
            errno: more(&self.errno, &earlier.errno),
        }
    }

    /// What was called, if it was.
    fn into_called(self, key: Key) -> Option<Called> {
        let Self { comm, count, returned, errors, total_ns, latencies, .. } = self;
        let pid = match key {
            Key::Call { of: Some((pid, ..)), .. } => Some(pid),
            _ => None,
        };
        let number = key.number();
        (count != 0 || returned != 0).then_some(Called {
            pid,
            comm,
            number,
            count,
            errors,
            total_ns,
            latencies,
        })
    }

    fn row(&self, key: Key, with: With) -> Row {
        let (pid, tid, comm) = match key {
            Key::Call { of: Some((pid, tid, _)), .. } => (Some(pid), tid, clean_c(&self.comm)),
            Key::Call { of: None, .. } => (None, None, clean(b"[all]")),
            Key::Ended { .. } => (None, None, clean(b"[ended]")),
            Key::Other { .. } => (None, None, clean(b"[other]")),
        };
        let number = key.number();
        let timed = |value: u64| with.timed.then_some(value);
        let syscall = called::name(number).into_owned();
        let own_cpu_ns = self.total_ns.saturating_sub(self.off_ns).saturating_sub(self.irq_ns);
        let percentile = |percent| {
            percentile(&self.latencies, percent).filter(|_| with.timed).map(|ns| ns.min(self.max_ns))
        };
        let name = |&(errno, n): &(u32, u64)| (syscalls::error(errno), n);
        Row {
            pid,
            tid,
            comm,
            number: number.map(|(_, number)| number),
            abi: key.abi().name(),
            count: self.count,
            returned: timed(self.returned),
            errors: timed(self.errors),
            errno: self.errno.iter().map(name).collect::<BTreeMap<_, _>>(),
            total_ns: timed(self.total_ns),
            cpu_ns: timed(self.total_ns.saturating_sub(self.off_ns)),
            blocked_ns: timed(self.off_ns),
            own_cpu_ns: own_cpu_ns + self.unreturned_cpu_ns,
            bytes: timed(self.bytes).filter(|_| Transfer::of(&syscall).is_some()),
            syscall,
            avg_ns: self.total_ns.checked_div(self.returned).filter(|_| with.timed),
            p50_ns: percentile(50),
            p90_ns: percentile(90),
            p99_ns: percentile(99),
            max_ns: timed(self.max_ns).filter(|_| self.returned != 0),
            in_progress: timed(self.in_progress),
            in_progress_ns: timed(self.in_progress_ns),
            histogram: with.histogram.then(|| ranges(&self.latencies)),
        }
    }
}

/// What rows have.
#[derive(Clone, Copy, Debug)]
pub struct With {
    /// Times.
    pub timed: bool,
    /// Histograms.
    pub histogram: bool,
}

/// Sums by what they are of.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    by: By,
    sums: HashMap<Key, Sum>,
    /// Most sums that are kept apart; `None`: all.
    limit: Option<usize>,
    merged: u64,
}

impl Totals {
    /// None yet. `bounded`: of threads that end, of which there can be any number.
    pub fn new(by: By, bounded: bool) -> Self {
        Self::with_room(by, bounded, 0)
    }

    /// The same, with room for so many sums before it grows.
    pub fn with_room(by: By, bounded: bool, sums: usize) -> Self {
        Self { by, sums: HashMap::with_capacity(sums), limit: bounded.then_some(MAX_KEPT), merged: 0 }
    }

    /// How many sums are kept apart.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    fn key(&self, caller: &Caller, number: u32) -> Key {
        let of = match self.by {
            By::Process => Some((caller.tgid, None, caller.process_start_ns)),
            By::Thread => Some((caller.tgid, Some(caller.tid), caller.start_ns)),
            By::Syscall => None,
        };
        Key::Call { of, number }
    }

    /// The sum of that key, or the one that stands for all that there is no room for.
    fn sum(&mut self, key: Key) -> &mut Sum {
        let is_full = self.limit.is_some_and(|limit| self.sums.len() >= limit);
        let key = match key {
            Key::Call { of: Some(_), number } if is_full && !self.sums.contains_key(&key) => {
                self.merged += 1;
                Key::Ended { number }
            }
            key => key,
        };
        self.sums.entry(key).or_default()
    }

    /// Adds the accounts of a thread. `now_ns`: the call that it is in goes on until then.
    pub fn add(&mut self, caller: &Caller, accounts: &[CallAccount], now_ns: u64) {
        let names = self.by == By::Thread || caller.tid == caller.tgid;
        for account in accounts {
            let key = self.key(caller, account.call.number);
            let sum = self.sum(key);
            sum.add_account(account);
            // A process has its first thread's name.
            if names || sum.comm == [0; _] {
                sum.comm = caller.comm;
            }
        }
        if caller.since_ns != 0 {
            let key = match caller.call {
                0 => Key::Other { place: other_place(caller.number) },
                _ => self.key(caller, caller.number),
            };
            // Off the CPU since it left, or ended then.
            let left_ns = if caller.left_ns != 0 { caller.left_ns } else { now_ns };
            let elsewhere_ns = caller.off_ns + caller.irq_ns;
            let cpu_ns = left_ns.saturating_sub(caller.since_ns).saturating_sub(elsewhere_ns);
            if caller.task != 0 {
                let sum = self.sum(key);
                sum.in_progress += 1;
                sum.in_progress_ns += now_ns.saturating_sub(caller.since_ns);
                sum.unreturned_cpu_ns += cpu_ns;
            } else if let Some(sum) = self.sums.get_mut(&key) {
                sum.unreturned_cpu_ns += cpu_ns;
            }
        }
    }

    /// Adds calls that have no account of their own.
    pub fn add_other(&mut self, place: u32, other: &Other, errors: &[(u32, u64)]) {
        let sum = self.sum(Key::Other { place });
        sum.count += other.count;
        sum.returned += other.returned;
        sum.errors += other.errors;
        sum.total_ns += other.total_ns;
        sum.max_ns = sum.max_ns.max(other.max_ns);
        sum.off_ns += other.off_ns;
        sum.irq_ns += other.irq_ns;
        sum.bytes = sum.bytes.wrapping_add(other.bytes);
        merge(&mut sum.errno, errors.iter().copied());
    }

    /// Adds other sums.
    pub fn add_all(&mut self, others: &Self) {
        for (&key, sum) in &others.sums {
            self.sums.entry(key).or_default().add_named(sum);
        }
    }

    /// Rows of what is there.
    pub fn rows(&self, with: With) -> Vec<Row> {
        self.sums.iter().map(|(&key, sum)| sum.row(key, with)).collect()
    }

    /// Rows of what was added since earlier sums.
    pub fn rows_since(&self, earlier: &Self, with: With) -> Vec<Row> {
        let added =
            |(&key, sum): (&Key, &Sum)| sum.added_since(earlier.sums.get(&key)).map(|sum| sum.row(key, with));
        self.sums.iter().filter_map(added).collect()
    }

    /// What was called since earlier sums, here and in `others`.
    pub fn called_with(&self, mut others: Self, earlier: &Self) -> Vec<Called> {
        let mut called = Vec::with_capacity(self.sums.len() + others.sums.len());
        for (&key, sum) in &self.sums {
            let both = others.sums.remove(&key).map(|other| {
                let mut both = sum.clone();
                both.add_named(&other);
                both
            });
            let added = both.as_ref().unwrap_or(sum).added_since(earlier.sums.get(&key));
            called.extend(added.and_then(|added| added.into_owned().into_called(key)));
        }
        called.extend(others.sums.into_iter().filter_map(|(key, sum)| match earlier.sums.get(&key) {
            Some(before) => sum.since(before).into_called(key),
            None => sum.into_called(key),
        }));
        called
    }

    /// Sums of calls of threads that ended that are not kept apart.
    pub const fn merged(&self) -> u64 {
        self.merged
    }

    /// Calls that returned and are in no histogram: there was no room for it.
    pub fn not_in_histograms(&self) -> u64 {
        let own = self.sums.iter().filter(|(key, _)| !matches!(key, Key::Other { .. }));
        own.map(|(_, sum)| {
            let in_histograms: u64 = sum.latencies.iter().map(|&(_, n)| n).sum();
            sum.returned.saturating_sub(in_histograms)
        })
        .sum()
    }
}

#[cfg(test)]
mod tests;
