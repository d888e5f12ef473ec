//! Accounts of sockets summed up to what rows are about.

use std::collections::HashMap;

use profiler_common::probe::net::{OTHER_KINDS, OtherSockets};

use super::{
    key::{self, Key, Of, Protocol},
    names::Names,
    sum::Sum,
};
use crate::{
    bpf::sockets::SocketAccount,
    model::net::{By, Row},
};

/// Sums that are kept apart, some 400 bytes each; sockets that are gone beyond it are summed up by protocol.
const MAX_KEPT: usize = 65_536;

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
    /// None yet. `bounded`: of sockets that are gone, of which there can be any number.
    pub fn new(by: By, bounded: bool) -> Self {
        Self { by, sums: HashMap::new(), limit: bounded.then_some(MAX_KEPT), merged: 0 }
    }

    /// The sum of that key, or the one that stands for all that there is no room for.
    fn sum(&mut self, key: Key) -> &mut Sum {
        let is_full = self.limit.is_some_and(|limit| self.sums.len() >= limit);
        if is_full && !self.sums.contains_key(&key) {
            self.merged += 1;
            return self.sums.entry((Of::Ended, key.1)).or_default();
        }
        self.sums.entry(key).or_default()
    }

    /// Adds an account. `now_ns`: connections go on until then.
    pub fn add(&mut self, account: &SocketAccount, now_ns: u64, names: &mut Names) {
        let key = key::of(self.by, &account.socket, names);
        self.sum(key).add_account(account, now_ns);
    }

    /// Adds what has no account.
    pub fn add_other(&mut self, others: &[OtherSockets; OTHER_KINDS]) {
        for (protocol, other) in Protocol::KINDS.into_iter().zip(others) {
            if *other == OtherSockets::default() {
                continue;
            }
            self.sum((Of::Other, protocol)).add_other(other);
        }
    }

    /// Adds other sums.
    pub fn add_all(&mut self, others: &Self) {
        for (key, sum) in &others.sums {
            let into = self.sums.entry(key.clone()).or_default();
            into.add(sum);
        }
    }

    /// Rows of what is there.
    pub fn rows(&self, duration_ns: u64, names: &Names) -> Vec<Row> {
        let sums = self.sums.iter().filter(|(_, sum)| sum.is_something());
        sums.map(|(key, sum)| sum.row(key, duration_ns, names)).collect()
    }

    /// Rows of what was added since earlier sums.
    pub fn rows_since(&self, earlier: &Self, duration_ns: u64, names: &Names) -> Vec<Row> {
        let none = Sum::default();
        let added =
            self.sums.iter().map(|(key, sum)| (key, sum.since(earlier.sums.get(key).unwrap_or(&none))));
        let added = added.filter(|(_, sum)| sum.is_something());
        added.map(|(key, sum)| sum.row(key, duration_ns, names)).collect()
    }

    /// Sums of sockets that are gone that are not kept apart.
    pub const fn merged(&self) -> u64 {
        self.merged
    }
}

#[cfg(test)]
mod tests;
