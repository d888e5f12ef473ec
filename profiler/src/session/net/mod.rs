//! Accounting of sockets from attach to rows, for the whole run and for each interval.
//!
//! Order of the start: targets, then the programs that tell of connections, then a look at all sockets that there are, so
//! that their owners are known, then the programs that count; only then a stopped command is released. At the end there is
//! a last look, all are detached, and then everything is read.

mod key;
mod names;
mod sum;
mod totals;

use std::net::IpAddr;

use super::{
    SessionError,
    sched::{AccountOptions, own},
    spans::{Intervals, Kept, Shared},
};
use crate::{
    bpf::{
        load::{Kernel, LoadOptions, NetOptions},
        stats::RunTime,
        targets::Targets,
    },
    model::{
        Cost, Losses,
        net::{By, Row, Span},
        when::unix_ns,
    },
    perf::clock::monotonic_ns,
    probe::net::{self, NetProbe},
};
use names::Names;
use profiler_common::probe::net::NetOffsets;
use totals::Totals;

/// What to account.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Of what, and when.
    pub account: AccountOptions,
    /// Members of sockets.
    pub offsets: NetOffsets,
    /// What rows are about.
    pub by: By,
    /// Sockets that there is room for; `None`: as there are.
    pub sockets: Option<u32>,
    /// Measure round trips: a program more at each segment that comes in.
    pub round_trips: bool,
    /// Ask for the names of remote addresses.
    pub resolve: bool,
}

/// Accounting in progress.
pub struct NetAccounting<'a> {
    options: &'a NetworkOptions,
    kernel: Kernel,
    targets: Targets,
    probe: NetProbe,
    /// Of sockets that are gone.
    ended: Totals,
    /// Those of intervals that were taken which have no account of their own there.
    merged_before: u64,
    names: Names,
    start_unix_ns: u64,
    last: Last,
    run_time: Option<RunTime>,
    cost: Cost,
    cpu_at_start: (u64, u64),
    notes: Vec<String>,
}

/// The state at the end of the last interval.
struct Last {
    number: u64,
    end_ns: u64,
    totals: Totals,
}

impl<'a> NetAccounting<'a> {
    /// Attaches everything and starts. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    pub fn start(options: &'a NetworkOptions, begun_ns: u64) -> Result<Self, SessionError> {
        let account = &options.account;
        let mut notes = account.notes.clone();
        if account.filter.cgroup_id != 0 {
            notes.push(
                "sockets that were open before are known from their first use on: whose they are is not known before"
                    .to_owned(),
            );
        }
        let room = options.sockets.unwrap_or_else(net::room);
        let mut kernel = Kernel::load(&LoadOptions {
            filter: account.filter,
            net: Some(NetOptions {
                offsets: options.offsets,
                sched_offsets: Some(account.sched_offsets),
                sockets: room,
                connecting: false,
            }),
            log: account.log,
            ..LoadOptions::new(account.offsets)
        })?;
        let targets = kernel.targets_of(&account.filter, &account.targets)?;
        let run_time = RunTime::if_asked(account.ebpf_cost, &mut notes);
        let probe = NetProbe::open(&mut kernel, room, options.round_trips)?;
        let start_ns = probe.start_ns();
        Ok(Self {
            options,
            kernel,
            targets,
            probe,
            ended: Totals::new(options.by, true),
            merged_before: 0,
            names: Names::new(),
            start_unix_ns: unix_ns(),
            last: Last { number: 0, end_ns: start_ns, totals: Totals::new(options.by, false) },
            run_time,
            cost: Cost { start_ns: start_ns.saturating_sub(begun_ns), ..Cost::default() },
            cpu_at_start: super::cost::cpu_ns(),
            notes,
        })
    }

    /// Takes the accounts of sockets out that were gone.
    fn take_gone(&mut self) -> Result<(), SessionError> {
        let (ended, names) = (&mut self.ended, &mut self.names);
        Ok(self.probe.sockets.take_ended(|account| ended.add(account, 0, names))?)
    }

    /// Everything so far.
    fn totals(&mut self, now_ns: u64) -> Result<Totals, SessionError> {
        self.take_gone()?;
        let mut totals = self.not_taken(now_ns)?;
        totals.add_all(&self.ended);
        Ok(totals)
    }

    /// What the kernel side has, of sockets that were not taken out.
    fn not_taken(&mut self, now_ns: u64) -> Result<Totals, SessionError> {
        let mut totals = Totals::new(self.options.by, false);
        let names = &mut self.names;
        self.probe.sockets.each(|account| totals.add(account, now_ns, names))?;
        totals.add_other(&self.probe.sockets.others()?);
        Ok(totals)
    }

    /// Rows of what happened since the last such call. Memory is that of the sockets that there are: what is gone is
    /// forgotten, so that there is no whole.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn take_interval(&mut self) -> Result<Vec<Row>, SessionError> {
        self.probe.look(&mut self.kernel)?;
        let end_ns = monotonic_ns();
        self.names.forget();
        self.take_gone()?;
        let ended = std::mem::replace(&mut self.ended, Totals::new(self.options.by, true));
        self.merged_before += ended.merged();
        // What is gone since then is in it, and is subtracted from what is taken next time.
        let open = self.not_taken(end_ns)?;
        let mut all = open.clone();
        all.add_all(&ended);
        let duration_ns = end_ns.saturating_sub(self.last.end_ns);
        let rows = all.rows_since(&self.last.totals, duration_ns, &self.names);
        self.last = Last { number: self.last.number + 1, end_ns, totals: open };
        Ok(rows)
    }

    /// The object.
    pub(in crate::session) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Limitations.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Asks for the names of the rows' remote addresses, if that is wanted. Whether there are any.
    fn resolve(&mut self, rows: &[Row]) -> bool {
        if !self.options.resolve {
            return false;
        }
        let address = |row: &Row| -> Option<IpAddr> {
            let remote = row.remote.as_deref()?;
            remote.parse::<std::net::SocketAddr>().map(|both| both.ip()).or_else(|_| remote.parse()).ok()
        };
        let unnamed = self.names.resolve(rows.iter().filter_map(address));
        if unnamed != 0 {
            let note = format!("{unnamed} addresses have no name, or none that was found in time");
            self.notes.retain(|note| !note.ends_with("found in time"));
            self.notes.push(note);
        }
        true
    }

    fn span(
        &self,
        number: Option<u64>,
        begin_ns: u64,
        end_ns: u64,
        rows: Vec<Row>,
    ) -> Result<Span, SessionError> {
        let start_ns = self.start_unix_ns + begin_ns.saturating_sub(self.probe.start_ns());
        let duration_ns = end_ns.saturating_sub(begin_ns);
        let meta = own::meta(&self.options.account, "sockets", start_ns, duration_ns, &self.notes);
        Ok(Span { number, meta, losses: self.losses()?, cost: self.cost(), by: self.options.by, rows })
    }

    /// What was lost.
    pub(in crate::session) fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.probe.sockets.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        let own = [
            ("sockets_of_ended_merged", self.merged_before + self.ended.merged()),
            ("programs_missed", NetProbe::missed(&self.kernel)),
        ];
        losses.counters.extend(own.map(|(name, count)| (name.to_owned(), count)));
        Ok(losses)
    }

    /// Kernel memory, bytes.
    pub(in crate::session) fn memory(&self) -> u64 {
        self.kernel.map_memory() + self.probe.sockets.memory() + self.targets.map_memory()
    }

    fn cost(&self) -> Cost {
        let ebpf = self.run_time.as_ref().map(|run_time| run_time.read(&self.kernel.ebpf));
        Cost { kernel_map_bytes: self.memory(), ..super::cost::since(&self.cost, self.cpu_at_start, ebpf) }
    }
}

impl Kept for NetAccounting<'_> {
    fn shared(&mut self) -> Shared<'_> {
        Shared { account: &self.options.account, kernel: &mut self.kernel, targets: Some(&mut self.targets) }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        self.probe.look_if_due(&mut self.kernel)?;
        self.take_gone()
    }
}

impl Intervals for NetAccounting<'_> {
    type Span = Span;

    fn interval(&mut self) -> Result<Span, SessionError> {
        self.probe.look(&mut self.kernel)?;
        let end_ns = monotonic_ns();
        let totals = self.totals(end_ns)?;
        let duration_ns = end_ns.saturating_sub(self.last.end_ns);
        let mut rows = totals.rows_since(&self.last.totals, duration_ns, &self.names);
        if self.resolve(&rows) {
            rows = totals.rows_since(&self.last.totals, duration_ns, &self.names);
        }
        let (begin_ns, number) = (self.last.end_ns, self.last.number + 1);
        self.last = Last { number, end_ns, totals };
        self.span(Some(number), begin_ns, end_ns, rows)
    }

    fn whole(mut self) -> Result<Span, SessionError> {
        self.probe.look(&mut self.kernel)?;
        let end_ns = self.probe.disable();
        let cost = self.cost();
        let totals = self.totals(end_ns)?;
        let duration_ns = end_ns.saturating_sub(self.probe.start_ns());
        let mut rows = totals.rows(duration_ns, &self.names);
        if self.resolve(&rows) {
            rows = totals.rows(duration_ns, &self.names);
        }
        drop(totals);
        let mut span = self.span(None, self.probe.start_ns(), end_ns, rows)?;
        span.cost = super::cost::finished(cost, end_ns);
        Ok(span)
    }
}
