//! Accounts of threads that have ended: kept one by one up to a number, beyond it in one sum, so that memory is bounded
//! however many threads come and go.

use super::account::{Account, Sum};
use crate::model::sched::Row;

/// Accounts kept one by one, some 300 bytes each.
const MAX_KEPT: usize = 32_768;

/// The name of the row of all that are not.
const MERGED_NAME: &[u8; 16] = b"[ended]\0\0\0\0\0\0\0\0\0";

/// The accounts.
#[derive(Default)]
pub struct Ended {
    kept: Vec<Account>,
    /// Those of the current interval begin here.
    interval: usize,
    /// Those of the current interval that went into the sum.
    interval_merged: Vec<Account>,
    sum: Sum,
    merged: u64,
    /// In intervals that were taken.
    merged_before: u64,
}

impl Ended {
    /// Adds one.
    pub fn push(&mut self, account: Account) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(account);
            return;
        }
        self.sum.add(&account);
        self.merged += 1;
        if self.interval_merged.len() < MAX_KEPT {
            self.interval_merged.push(account);
        }
    }

    /// Those that ended in the current interval; of what is in the sum, at most as many as are kept one by one.
    pub fn of_interval(&self) -> impl Iterator<Item = &Account> {
        self.kept.iter().skip(self.interval).chain(&self.interval_merged)
    }

    /// Begins the next interval.
    pub fn begin_interval(&mut self) {
        self.interval = self.kept.len();
        self.interval_merged.clear();
    }

    /// Forgets all, for accounts whose whole nobody asks for. What was in the sum alone is the rest's.
    pub fn take_interval(&mut self) -> (Vec<Account>, Option<Sum>) {
        let merged = std::mem::take(&mut self.merged);
        self.merged_before += merged;
        self.interval_merged.clear();
        self.interval = 0;
        let rest = std::mem::take(&mut self.sum);
        (std::mem::take(&mut self.kept), (merged != 0).then_some(rest))
    }

    /// How many are not kept one by one, or were not in intervals that were taken.
    pub const fn merged(&self) -> u64 {
        self.merged_before + self.merged
    }

    /// Those that are kept one by one.
    pub fn kept(&self) -> &[Account] {
        &self.kept
    }

    /// The sum of all of them. What is not kept one by one is in it alone from then on.
    pub fn sum(&mut self) -> Sum {
        let mut sum = std::mem::take(&mut self.sum);
        self.kept.iter().for_each(|account| sum.add(account));
        sum
    }

    /// The row of the others, if there are others. `counters`: what was counted.
    pub fn rest(&mut self, counters: &[&'static str]) -> Option<Row> {
        (self.merged != 0).then(|| std::mem::take(&mut self.sum).row(None, None, MERGED_NAME, counters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_nothing_vanishes() {
        let mut ended = Ended::default();
        for _ in 0..MAX_KEPT + 10 {
            ended.push(Account::default());
        }
        assert_eq!((ended.merged(), ended.of_interval().count()), (10, MAX_KEPT + 10));
        ended.begin_interval();
        assert_eq!(ended.of_interval().count(), 0);
        let row = ended.rest(&[]).unwrap();
        assert_eq!(
            (ended.kept().len(), row.threads, row.pid, row.comm.as_str()),
            (MAX_KEPT, 10, None, "[ended]")
        );
    }

    #[test]
    fn what_was_merged_is_counted_behind_an_interval_too() {
        let mut ended = Ended::default();
        for merged in [10, 20] {
            for _ in 0..MAX_KEPT + 10 {
                ended.push(Account::default());
            }
            let (kept, rest) = ended.take_interval();
            assert_eq!((kept.len(), rest.is_some(), ended.merged()), (MAX_KEPT, true, merged));
        }
        assert!(ended.take_interval().1.is_none());
    }
}
