//! A window between the kernel's maps and its names.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Jvms, assemble, processes::Process};
use crate::{
    model::{
        Cost, Losses, Meta, Profile, net,
        sched::{CpuRow, Row},
        window::{Place, Rates, Window},
    },
    session::{build::Taken, syscalls::called::Called},
    symbolize::NameCache,
};

/// A window as it was read: addresses, and accounts by process.
#[derive(Default)]
pub struct RawWindow {
    pub(in crate::session) start_unix_ns: u64,
    pub(in crate::session) start_boot_ns: u64,
    pub(in crate::session) duration_ns: u64,
    pub(in crate::session) number: u64,
    pub(in crate::session) boot_id: String,
    pub(in crate::session) rates: Rates,
    pub(in crate::session) taken: Option<Taken>,
    pub(in crate::session) meta: Meta,
    pub(in crate::session) losses: Losses,
    pub(in crate::session) cost: Cost,
    /// Of this process and of the kernel for it, bytes.
    pub(in crate::session) memory: u64,
    pub(in crate::session) processes: Vec<Process>,
    /// Threads that ended and were too many to be kept one by one.
    pub(in crate::session) rest: Option<Row>,
    pub(in crate::session) calls: Vec<Called>,
    pub(in crate::session) net: Vec<net::Row>,
    pub(in crate::session) cpus: CpuRow,
    pub(in crate::session) places: HashMap<u32, Arc<Place>>,
    /// Processes that are JVMs: id and start.
    pub(in crate::session) jvm_pids: Vec<(u32, u64)>,
}

impl RawWindow {
    /// What was used in it.
    pub const fn cost(&self) -> &Cost {
        &self.cost
    }

    /// Memory at its end, bytes: that of this process, and the kernel's for it. Pages of files are those of the page cache, and
    /// pages of maps that are mapped are the kernel's.
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// How long it was.
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns)
    }

    /// Its number, which is that of whoever takes windows: sessions come and go.
    pub const fn set_number(&mut self, number: u64) {
        self.number = number;
    }

    /// Notes what is to be known of it.
    pub fn note(&mut self, note: String) {
        self.meta.notes.push(note);
    }

    /// Names and sums up. `cache`: names found before; `jvms`: the JVMs known; at most `max_series` series are kept apart.
    pub fn build(mut self, cache: &mut NameCache, jvms: &mut Jvms, max_series: usize) -> Window {
        let jvms = jvms.look(&self.jvm_pids);
        let (mut profile, idle) = match self.taken.take().map(|taken| taken.build(cache)) {
            Some(built) => (built.profile, built.idle_samples),
            None => (Profile::default(), 0),
        };
        self.losses.unresolved = std::mem::take(&mut profile.losses.unresolved);
        profile.meta = Meta { idle_samples: idle, ..std::mem::take(&mut self.meta) };
        profile.losses = std::mem::take(&mut self.losses);
        profile.cost = std::mem::take(&mut self.cost);
        assemble::window(self, profile, &jvms, max_series)
    }
}
