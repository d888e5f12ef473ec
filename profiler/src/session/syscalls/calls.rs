//! Accounts of calls while they are kept: begun, read at a moment. What makes spans of them, or a whole of them and others,
//! is above.

use super::{SessionError, called::Called, totals::Totals};
use crate::{
    bpf::{calls::Room, load::Kernel, stats},
    model::{Losses, syscalls::By},
    probe::syscalls::{Depth, SyscallsProbe},
};

/// Threads that ended are taken out this long after the last ones at the latest, ns.
const TAKE_INTERVAL_NS: u64 = 1_000_000_000;

/// The accounts.
pub struct CallAccounts {
    /// What keeps them.
    pub probe: SyscallsProbe,
    depth: Depth,
    by: By,
    /// Of threads that ended.
    ended: Totals,
    /// When those were last taken out, `CLOCK_MONOTONIC`, ns.
    taken_ns: u64,
    /// Those of intervals that were taken which have no account of their own there.
    merged_before: u64,
    /// What was added when it was last read.
    not_in_histograms: u64,
}

impl CallAccounts {
    /// Attaches what keeps them: calls are accounted from then on.
    pub fn open(kernel: &mut Kernel, room: Room, depth: Depth, by: By) -> Result<Self, SessionError> {
        let probe = SyscallsProbe::open(kernel, room, depth)?;
        let (ended, taken_ns) = (Totals::new(by, true), probe.start_ns());
        Ok(Self { probe, depth, by, ended, taken_ns, merged_before: 0, not_in_histograms: 0 })
    }

    /// Takes the accounts of threads out that ended until now.
    pub fn take_ended(&mut self, now_ns: u64) -> Result<(), SessionError> {
        let ended = &mut self.ended;
        self.probe.calls.take_ended(|caller, accounts| ended.add(caller, accounts, now_ns))?;
        self.taken_ns = now_ns;
        Ok(())
    }

    /// The same if they are many, or some have waited for long. One time costs the walk through all errors, however few
    /// threads there are.
    pub fn take_if_due(&mut self, now_ns: u64) -> Result<(), SessionError> {
        let is_due = now_ns.saturating_sub(self.taken_ns) >= TAKE_INTERVAL_NS;
        if self.probe.calls.have_many_ended() || is_due { self.take_ended(now_ns) } else { Ok(()) }
    }

    /// Everything so far. Threads that end meanwhile are read where they are.
    pub fn totals(&mut self, now_ns: u64) -> Result<Totals, SessionError> {
        self.take_ended(now_ns)?;
        let mut totals = self.not_taken(now_ns)?;
        totals.add_all(&self.ended);
        self.not_in_histograms = if self.depth == Depth::Timed { totals.not_in_histograms() } else { 0 };
        Ok(totals)
    }

    /// What the kernel side has, of threads that were not taken out.
    fn not_taken(&mut self, now_ns: u64) -> Result<Totals, SessionError> {
        let mut totals = Totals::new(self.by, false);
        self.probe.calls.each(|caller, accounts| totals.add(caller, accounts, now_ns))?;
        for other in self.probe.calls.others()? {
            totals.add_other(other.place, &other.sum, &other.errors);
        }
        Ok(totals)
    }

    /// What was called since the last such call, until `now_ns`. Memory is that of the threads that there are: what ended is
    /// forgotten. `last`: what the last call left here.
    pub fn take_interval(&mut self, now_ns: u64, last: &mut Totals) -> Result<Vec<Called>, SessionError> {
        self.take_ended(now_ns)?;
        let room = self.ended.len();
        let ended = std::mem::replace(&mut self.ended, Totals::with_room(self.by, true, room));
        self.merged_before += ended.merged();
        // What ended since then is in it, and is subtracted from what is taken next time.
        let alive = self.not_taken(now_ns)?;
        let before = std::mem::replace(last, alive);
        if self.depth == Depth::Timed {
            let all = last.not_in_histograms() + ended.not_in_histograms();
            self.not_in_histograms += all.saturating_sub(before.not_in_histograms());
        }
        Ok(last.called_with(ended, &before))
    }

    /// What was lost. `kernel`: the object that the programs are of.
    pub fn losses(&self, kernel: &Kernel) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.probe.calls.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        let own = [
            ("calls_not_in_histograms", self.not_in_histograms),
            ("calls_of_ended_merged", self.merged_before + self.ended.merged()),
            ("programs_missed", stats::missed(&kernel.ebpf)),
        ];
        losses.counters.extend(own.map(|(name, count)| (name.to_owned(), count)));
        Ok(losses)
    }

    /// Kernel memory, bytes.
    pub fn memory(&self) -> u64 {
        self.probe.calls.memory()
    }
}
