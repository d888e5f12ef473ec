//! The parts of the threads' time, from accounts that are exact; and what is in each, from samples and accounts.

use super::tops::{Side, Tops};
use crate::{
    host::syscalls::Transfer,
    model::{
        Profile,
        named::Named,
        sched::Row,
        stat::{Counts, Kind, MAX_TOP, Part, Stat, Syscall},
        syscalls,
    },
    perf::counters::{MAJOR_FAULTS, MINOR_FAULTS},
    session::sched::threads::Numbers,
};

/// What is put together.
pub struct Parts<'a> {
    /// The accounts of all threads, in one sum.
    pub total: &'a Row,
    /// The accounts of calls.
    pub calls: &'a [syscalls::Row],
    /// Threads and processes.
    pub numbers: Numbers,
    /// Samples of `cpu` and `offcpu`.
    pub profile: &'a Profile,
}

impl Parts<'_> {
    /// The whole, but for circumstances, losses and cost.
    pub fn stat(&self) -> Stat {
        let tops = Tops::of(self.profile);
        let mut parts = self.on_cpu(&tops);
        let row = self.total;
        let plain = |kind, ns| Part { kind, ns, estimated_by: None, functions: vec![], syscalls: vec![] };
        parts.push(Part {
            functions: tops.functions(Side::Interrupt, row.irq_ns),
            ..plain(Kind::Interrupts, row.irq_ns)
        });
        parts.push(plain(Kind::RunQueue, row.run_queue_ns));
        let mut blocked: Vec<_> =
            row.blocked.iter().map(|(cause, ns)| self.blocked(cause, ns, &tops)).collect();
        blocked.sort_by_key(|part| std::cmp::Reverse(part.ns));
        parts.extend(blocked);
        parts.push(plain(Kind::Unknown, row.unknown_ns));
        parts.retain(|part| part.ns != 0);
        Stat {
            thread_ns: row.wall_ns,
            parts,
            samples: tops.samples(),
            counts: self.counts(),
            ..Stat::default()
        }
    }

    /// Time on a CPU without interrupts: in calls, which is exact; and the rest, which samples divide. What of all samples
    /// is in user mode, so much of the time is; but no more than there is outside of calls.
    fn on_cpu(&self, tops: &Tops) -> Vec<Part> {
        let row = self.total;
        let in_calls: u64 = self.calls.iter().map(|call| call.own_cpu_ns).sum();
        let in_calls = in_calls.min(row.cpu_ns);
        let outside = row.cpu_ns - in_calls;
        let mut syscalls: Vec<_> = self.calls.iter().filter(|call| call.own_cpu_ns != 0).collect();
        syscalls.sort_by_key(|call| (std::cmp::Reverse(call.own_cpu_ns), &call.syscall));
        let syscalls = syscalls.into_iter().take(MAX_TOP).map(|call| Syscall {
            syscall: call.syscall.clone(),
            ns: call.own_cpu_ns,
            count: Some(call.count),
            errors: call.errors,
        });
        let part = |kind, ns, side, estimated_by| Part {
            kind,
            ns,
            estimated_by,
            functions: tops.functions(side, ns),
            syscalls: Vec::new(),
        };
        let calls =
            Part { syscalls: syscalls.collect(), ..part(Kind::Syscalls, in_calls, Side::Syscall, None) };
        let samples = tops.samples();
        if samples == 0 {
            return vec![part(Kind::OutsideSyscalls, outside, Side::User, Some(0)), calls];
        }
        let user =
            u128::from(row.cpu_ns + row.irq_ns) * u128::from(tops.of_side(Side::User)) / u128::from(samples);
        let user = u64::try_from(user).unwrap_or(u64::MAX).min(outside);
        vec![
            part(Kind::User, user, Side::User, Some(samples)),
            calls,
            part(Kind::Kernel, outside - user, Side::Kernel, Some(samples)),
        ]
    }

    fn blocked(&self, cause: &'static str, ns: u64, tops: &Tops) -> Part {
        let syscalls = tops.blocking_calls(cause).into_iter().map(|(syscall, ns)| {
            let mut rows = self.calls.iter().filter(|row| row.syscall == syscall).peekable();
            let known = rows.peek().is_some();
            let (count, errors) = rows
                .fold((0, 0), |(count, errors), row| (count + row.count, errors + row.errors.unwrap_or(0)));
            Syscall { syscall, ns, count: known.then_some(count), errors: known.then_some(errors) }
        });
        Part {
            kind: Kind::Blocked(cause),
            ns,
            estimated_by: None,
            functions: tops.blocked_functions(cause),
            syscalls: syscalls.collect(),
        }
    }

    fn counts(&self) -> Counts {
        let row = self.total;
        let bytes = |transfer| {
            let of = self.calls.iter().filter(|call| Transfer::of(&call.syscall) == Some(transfer));
            of.filter_map(|call| call.bytes).fold(0, u64::wrapping_add)
        };
        let faults = [MINOR_FAULTS, MAJOR_FAULTS];
        Counts {
            processes: self.numbers.processes,
            threads: self.numbers.threads,
            voluntary: row.voluntary,
            involuntary: row.involuntary,
            migrations: row.migrations,
            minor_faults: row.counters.get(MINOR_FAULTS),
            major_faults: row.counters.get(MAJOR_FAULTS),
            syscalls: self.calls.iter().map(|call| call.count).sum(),
            syscall_errors: self.calls.iter().filter_map(|call| call.errors).sum(),
            read_bytes: bytes(Transfer::Read),
            written_bytes: bytes(Transfer::Written),
            received_bytes: bytes(Transfer::Received),
            sent_bytes: bytes(Transfer::Sent),
            copied_bytes: bytes(Transfer::Copied),
            counters: row.counters.iter().filter(|(name, _)| !faults.contains(name)).collect::<Named>(),
            cpi: row.cpi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::stat::tops::tests::profile;

    fn total() -> Row {
        Row {
            wall_ns: 1_000,
            cpu_ns: 500,
            irq_ns: 100,
            run_queue_ns: 50,
            blocked_ns: 340,
            blocked: [("pipe", 40), ("futex", 300)].into_iter().collect(),
            unknown_ns: 10,
            counters: [(MINOR_FAULTS, 5), (MAJOR_FAULTS, 1), ("cycles", 9)].into_iter().collect(),
            ..Row::default()
        }
    }

    fn call(syscall: &str, own_cpu_ns: u64, bytes: Option<u64>) -> syscalls::Row {
        syscalls::Row {
            syscall: syscall.to_owned(),
            own_cpu_ns,
            bytes,
            count: 3,
            errors: Some(1),
            ..syscalls::Row::default()
        }
    }

    fn stat(calls: &[syscalls::Row], profile: &Profile) -> Stat {
        Parts { total: &total(), calls, numbers: Numbers::default(), profile }.stat()
    }

    fn times(stat: &Stat) -> Vec<(Kind, u64)> {
        stat.parts.iter().map(|part| (part.kind, part.ns)).collect()
    }

    #[test]
    fn parts_are_the_whole() {
        let calls = [call("read", 200, Some(7)), call("openat", 50, None)];
        let waits: &[(&[&str], i64)] = &[(&["[blocked: pipe]", "k:ksys_read", "get"], 40)];
        let stat = stat(&calls, &profile(&[(&["work"], 2), (&["k:fault", "work"], 4)], waits));
        // A third of 600 ns on a CPU.
        let expected = [
            (Kind::User, 200),
            (Kind::Syscalls, 250),
            (Kind::Kernel, 50),
            (Kind::Interrupts, 100),
            (Kind::RunQueue, 50),
            (Kind::Blocked("futex"), 300),
            (Kind::Blocked("pipe"), 40),
            (Kind::Unknown, 10),
        ];
        assert_eq!((times(&stat), stat.thread_ns), (expected.to_vec(), 1_000));
        assert_eq!(stat.parts.iter().map(|part| part.ns).sum::<u64>(), stat.thread_ns);
        let read = Syscall { syscall: "read".to_owned(), ns: 200, count: Some(3), errors: Some(1) };
        assert_eq!(stat.parts[1].syscalls[0], read);
        assert_eq!(stat.parts[6].syscalls, [Syscall { ns: 40, ..read }]);
        let estimated: Vec<_> = stat.parts.iter().filter_map(|part| part.estimated_by).collect();
        assert_eq!(estimated, [6, 6]);
        let counts = &stat.counts;
        assert_eq!((counts.read_bytes, counts.syscalls, counts.syscall_errors), (7, 6, 2));
        assert_eq!(
            (counts.minor_faults, counts.major_faults, counts.counters.iter().count()),
            (Some(5), Some(1), 1)
        );
    }

    #[test]
    fn without_samples_what_they_divide_is_one_part() {
        let stat = stat(&[call("read", 200, None)], &profile(&[], &[]));
        assert_eq!(times(&stat)[..2], [(Kind::OutsideSyscalls, 300), (Kind::Syscalls, 200)]);
    }

    #[test]
    fn no_part_is_larger_than_what_it_is_of() {
        let all_user = profile(&[(&["work"], 5)], &[]);
        let stat_of = |cpu_ns| times(&stat(&[call("read", cpu_ns, None)], &all_user));
        assert_eq!(stat_of(100)[..2], [(Kind::User, 400), (Kind::Syscalls, 100)]);
        assert_eq!(stat_of(9_999)[0], (Kind::Syscalls, 500));
    }
}
