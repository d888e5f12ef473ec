//! The host's network from attach to rows, for the whole run and for each interval.
//!
//! What the kernel counts itself is read right behind what the programs counted: the two are of the same time but for the
//! reading.
//!
//! Some kernels run no programs while an agent of theirs is the current task. A soft interrupt that hits it sends and receives
//! packets that nobody counts. The kernel's own number of soft interrupts tells how many these were: it is read after the
//! programs are attached and before they are read, so that what they counted cannot be too little for another reason.

mod locations;
mod rows;

use profiler_common::probe::packets::Drop;

use super::{
    SessionError,
    sched::{AccountOptions, own},
    spans::{Intervals, Kept, Shared},
};
use crate::{
    bpf::{
        load::{Kernel, LoadOptions},
        packets::Packets,
        stats::{self, RunTime},
    },
    host::{
        btf::{self, DropReasons},
        network::{self, Counted},
    },
    model::{Cost, Losses, packets::Span, when::unix_ns},
    perf::clock::monotonic_ns,
    probe::packets::PacketsProbe,
};
use locations::Locations;

/// What to count.
#[derive(Clone, Debug)]
pub struct PacketOptions {
    /// When, and how it is reported.
    pub account: AccountOptions,
    /// Give the histograms too.
    pub histogram: bool,
}

/// Counting in progress.
pub struct PacketAccounting<'a> {
    options: &'a PacketOptions,
    kernel: Kernel,
    probe: PacketsProbe,
    reasons: DropReasons,
    locations: Locations,
    own_netns: Option<u32>,
    start_unix_ns: u64,
    host_at_start: Counted,
    soft_interrupts_at_start: Option<u32>,
    last: Moment,
    number: u64,
    run_time: Option<RunTime>,
    cost: Cost,
    cpu_at_start: (u64, u64),
    notes: Vec<String>,
}

/// Everything that was counted up to a moment.
#[derive(Default)]
struct Moment {
    at_ns: u64,
    packets: Packets,
    /// Of the kernel's count, those that the programs should have seen by then.
    soft_interrupts: Option<u32>,
    host: Counted,
}

impl<'a> PacketAccounting<'a> {
    /// Attaches everything and starts. `begun_ns` is when the profiler was started (`CLOCK_MONOTONIC`).
    pub fn start(options: &'a PacketOptions, begun_ns: u64) -> Result<Self, SessionError> {
        let account = &options.account;
        let mut notes = account.notes.clone();
        let own_netns = network::namespace();
        let unknown = |error: btf::BtfError| {
            let source = std::io::Error::other(error.to_string());
            SessionError::Host { path: account.btf.clone(), source }
        };
        let offsets = btf::packet_offsets(&account.btf, own_netns.is_some()).map_err(unknown)?;
        let (drops, reasons) = btf::drops(&account.btf).map_err(unknown)?;
        if drops.reasons == 0 {
            notes.push("why packets are dropped is not known: kernels say it since Linux 5.17".to_owned());
        }
        let mut kernel = Kernel::load(&LoadOptions {
            packets: Some(offsets),
            drops: Some(drops),
            log: account.log,
            ..LoadOptions::new(account.offsets)
        })?;
        let run_time = RunTime::if_asked(account.ebpf_cost, &mut notes);
        let probe = PacketsProbe::open(&mut kernel)?;
        // Not before: loading the programs takes longer than all the rest.
        let soft_interrupts_at_start = network::soft_interrupts();
        let host = network::read();
        let start_ns = probe.start_ns();
        Ok(Self {
            options,
            kernel,
            probe,
            reasons,
            locations: Locations::default(),
            own_netns,
            start_unix_ns: unix_ns(),
            host_at_start: host.clone(),
            soft_interrupts_at_start,
            last: Moment { at_ns: start_ns, host, ..Moment::default() },
            number: 0,
            run_time,
            cost: Cost { start_ns: start_ns.saturating_sub(begun_ns), ..Cost::default() },
            cpu_at_start: super::cost::cpu_ns(),
            notes,
        })
    }

    /// Now. `soft_interrupts` is as read before the programs could be detached.
    fn moment(&self, at_ns: u64, soft_interrupts: Option<u32>) -> Result<Moment, SessionError> {
        Ok(Moment { at_ns, packets: self.probe.maps.read()?, soft_interrupts, host: network::read() })
    }

    fn span(&mut self, number: Option<u64>, before: &Moment, now: &Moment) -> Result<Span, SessionError> {
        let start_ns = self.start_unix_ns + (before.at_ns - self.probe.start_ns());
        let duration_ns = now.at_ns - before.at_ns;
        let meta = own::meta(&self.options.account, "kfree_skb", start_ns, duration_ns, &self.notes);
        let places = now.packets.drops.keys().flatten().map(|drop: &Drop| drop.location);
        self.locations.resolve(places);
        let host = now.host.since(&before.host);
        let location = |address| self.locations.name(address);
        Ok(Span {
            number,
            meta,
            losses: self.losses(now)?,
            cost: self.cost(),
            interfaces: rows::interfaces(
                &now.packets,
                &before.packets,
                self.own_netns,
                self.options.histogram,
            ),
            drops: rows::drops(&now.packets, &before.packets, &self.reasons, location),
            softirqs: rows::softirqs(&now.packets.softirqs, &before.packets.softirqs, &host),
            counters: host.counters,
        })
    }

    fn losses(&self, now: &Moment) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.probe.maps.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        let own = [
            ("queue_times_not_in_histograms", rows::not_in_histograms(&now.packets)),
            ("programs_missed", stats::missed(&self.kernel.ebpf)),
        ];
        losses.counters.extend(own.map(|(name, count)| (name.to_owned(), count)));
        if let Some((start, end)) = self.soft_interrupts_at_start.zip(now.soft_interrupts) {
            let not_traced = rows::not_traced(end.wrapping_sub(start), now.packets.softirqs.begun);
            losses.counters.insert("soft_interrupts_not_traced".to_owned(), not_traced);
        }
        Ok(losses)
    }

    fn cost(&self) -> Cost {
        let ebpf = self.run_time.as_ref().map(|run_time| run_time.read(&self.kernel.ebpf));
        Cost {
            kernel_map_bytes: self.kernel.map_memory() + self.probe.maps.memory(),
            ..super::cost::since(&self.cost, self.cpu_at_start, ebpf)
        }
    }
}

impl Kept for PacketAccounting<'_> {
    fn shared(&mut self) -> Shared<'_> {
        // The host's network is nobody's.
        Shared { account: &self.options.account, kernel: &mut self.kernel, targets: None }
    }

    fn take_ended(&mut self) -> Result<(), SessionError> {
        // Nothing ends.
        Ok(())
    }
}

impl Intervals for PacketAccounting<'_> {
    type Span = Span;

    fn interval(&mut self) -> Result<Span, SessionError> {
        let now = self.moment(monotonic_ns(), network::soft_interrupts())?;
        let before = std::mem::take(&mut self.last);
        self.number += 1;
        let span = self.span(Some(self.number), &before, &now)?;
        self.last = now;
        Ok(span)
    }

    fn whole(mut self) -> Result<Span, SessionError> {
        let soft_interrupts = network::soft_interrupts();
        let end_ns = self.probe.disable();
        let cost = self.cost();
        let now = self.moment(end_ns, soft_interrupts)?;
        let host = std::mem::take(&mut self.host_at_start);
        let start = Moment { at_ns: self.probe.start_ns(), host, ..Moment::default() };
        let mut span = self.span(None, &start, &now)?;
        span.cost = super::cost::finished(cost, end_ns);
        Ok(span)
    }
}
