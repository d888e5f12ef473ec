//! The recording's header: what the host is and how it was sampled.

use profiler_common::{loss::Loss, sample::Seen};

use super::{RecordOptions, SessionError};
use crate::{
    bpf::samples::Samples,
    host::kernel::Version,
    model::{Losses, Meta, name::clean},
    perf::sampler::{Clock, Sampler},
    probe::{
        Chosen, Event, Probe, net_stacks, socket_packets, switches, syscall_stacks,
        tracepoint::MISSES_COUNTED,
    },
};

/// The loss that [`left_out`] tells.
const PROGRAMS_MISSED: &str = "programs_missed";

/// What is known at the end of a recording.
pub struct Facts<'a> {
    /// What was asked for.
    pub options: &'a RecordOptions,
    /// The probes, after they were disabled.
    pub probes: &'a [Probe],
    /// Their maps.
    pub samples: &'a Samples,
    /// Number of CPUs.
    pub cpus: usize,
    /// Start of sampling, ns since the Unix epoch.
    pub start_unix_ns: u64,
    /// Length of the recording, ns.
    pub duration_ns: u64,
    /// Time resolution, ns.
    pub window_ns: u64,
    /// CPU time that the hypervisor took meanwhile, ns.
    pub stolen_ns: u64,
    /// Limitations that showed up while recording.
    pub notes: Vec<String>,
}

/// What made the samples.
struct Driver {
    name: String,
    reason: Option<String>,
    cpus: usize,
    expected_ticks: u64,
}

impl Driver {
    fn of(facts: &Facts<'_>) -> Self {
        let timer = facts.probes.iter().find_map(|probe| match probe {
            Probe::Cpu(probe) => Some(Self::timer(probe.sampler(), facts)),
            _ => None,
        });
        timer.unwrap_or(Self {
            name: facts.options.events.first().map_or(String::new(), Self::hook),
            reason: None,
            cpus: facts.cpus,
            expected_ticks: 0,
        })
    }

    /// What is hit by an event that no timer makes.
    fn hook(chosen: &Chosen) -> String {
        let tracepoint = match chosen.event {
            Event::Tracepoint(_)
            | Event::Uprobe(_)
            | Event::Usdt(_)
            | Event::Kprobe(_)
            | Event::Between(_)
            | Event::Calls(_)
            | Event::Java(..) => return chosen.name(),
            Event::NetTx => net_stacks::SENT_TRACEPOINT,
            Event::NetRx => net_stacks::RECEIVED_TRACEPOINT,
            Event::Connect => net_stacks::STATE_TRACEPOINT,
            Event::Retransmit => socket_packets::SENT_AGAIN_TRACEPOINT,
            Event::Drops => socket_packets::DROPPED_TRACEPOINT,
            Event::Syscalls | Event::SyscallTime => syscall_stacks::TRACEPOINT,
            Event::Cpu | Event::ContextSwitches | Event::OffCpu | Event::RunQueue => switches::TRACEPOINT,
        };
        tracepoint.to_owned()
    }

    fn timer(sampler: &Sampler, facts: &Facts<'_>) -> Self {
        let expected_ticks = match sampler.clock() {
            Clock::CpuClock => expected_ticks(facts.options.frequency_hz, facts.duration_ns, sampler.cpus()),
            Clock::Cycles => 0,
        };
        Self {
            name: sampler.clock().name().to_owned(),
            reason: sampler.fallback_reason().map(str::to_owned),
            cpus: sampler.cpus(),
            expected_ticks,
        }
    }
}

/// Makes the header. The number of idle samples is known only after naming.
pub fn meta(facts: Facts<'_>) -> Result<Meta, SessionError> {
    let uname = rustix::system::uname();
    let Driver { name, reason, cpus, expected_ticks } = Driver::of(&facts);
    let mut notes = facts.options.notes.clone();
    notes.extend(facts.notes);
    let ticks = facts.samples.seen(Seen::Hits)?;
    notes.extend(undelivered(ticks, expected_ticks));
    notes.extend(stolen(facts.stolen_ns, facts.duration_ns.saturating_mul(facts.cpus as u64)));
    Ok(Meta {
        profiler_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: clean(uname.nodename().to_bytes()),
        kernel: clean(uname.release().to_bytes()),
        arch: clean(uname.machine().to_bytes()),
        cpus: cpus as u32,
        start_unix_ns: facts.start_unix_ns,
        duration_ns: facts.duration_ns,
        events: facts.options.events.iter().map(Chosen::name).collect(),
        sampler: name,
        sampler_reason: reason,
        frequency_hz: facts.options.frequency_hz,
        target: facts.options.target_words.clone(),
        command: facts.options.command_line.clone(),
        window_ns: facts.window_ns,
        idle_samples: 0,
        ticks,
        expected_ticks,
        stolen_ns: facts.stolen_ns,
        notes,
    })
}

/// Hits of hooks that the kernel ran no program at: a loss, at most of that size. Where they are not counted, that is a
/// note.
pub fn left_out(
    probes: &[Probe],
    samples: &Samples,
    losses: &mut Losses,
    meta: &mut Meta,
) -> Result<(), SessionError> {
    if probes.iter().any(|probe| matches!(probe, Probe::Uprobe(_) | Probe::Between(_))) {
        let note = "each coming to a place in user code is a trap that takes some microseconds: what comes to it often is \
                    slower than without"
            .to_owned();
        meta.notes.push(note);
        let name = Loss::UprobeBusy.name().to_owned();
        losses.counters.insert(name.clone(), samples.loss(Loss::UprobeBusy)?);
        losses.lost_sample_causes.push(name);
    }
    if probes.iter().any(|probe| matches!(probe, Probe::Kprobe(_))) {
        let note = "hits of a kprobe while another kprobe is handled on that CPU, and returns of a function that more threads are in \
                    than the kernel keeps places for (10, or twice the CPUs), are missing, and it does not say how many"
            .to_owned();
        meta.notes.push(note);
    }
    let Some(missed) = probes.iter().filter_map(Probe::missed).reduce(u64::saturating_add) else {
        return Ok(());
    };
    if Version::parse(&meta.kernel).is_some_and(|version| version < MISSES_COUNTED) {
        let note = format!(
            "hits of a tracepoint or kprobe in an interrupt while a program runs on that CPU are missing, and only Linux \
             {MISSES_COUNTED} counts them"
        );
        meta.notes.push(note);
        return Ok(());
    }
    losses.counters.insert(PROGRAMS_MISSED.to_owned(), missed);
    losses.lost_sample_causes.push(PROGRAMS_MISSED.to_owned());
    Ok(())
}

/// Ticks that a timer of that frequency gives on all CPUs.
fn expected_ticks(frequency_hz: u64, duration_ns: u64, cpus: usize) -> u64 {
    let per_second = u128::from(frequency_hz).saturating_mul(cpus as u128);
    u64::try_from(per_second.saturating_mul(u128::from(duration_ns)) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// Says why ticks are missing, if more are than timers are late by (2 %).
fn undelivered(ticks: u64, expected: u64) -> Option<String> {
    let missing = expected.saturating_sub(ticks);
    (missing > expected / 50).then(|| {
        let percent = missing as f64 * 100.0 / expected as f64;
        format!(
            "{percent:.0} % of the timer ticks did not come: idle CPUs whose timer stands still (nothing is missing \
             then), or a hypervisor that gave the CPU to others (then CPU time is missing)"
        )
    })
}

/// Says how much the hypervisor took, if it is 1 % or more of the CPUs' time.
fn stolen(stolen_ns: u64, all_ns: u64) -> Option<String> {
    (stolen_ns != 0 && stolen_ns >= all_ns / 100).then(|| {
        let percent = stolen_ns as f64 * 100.0 / all_ns.max(1) as f64;
        format!(
            "the hypervisor took {percent:.1} % of the CPUs' time: what ran meanwhile seems slower than it is"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_rate_times_time_times_cpus() {
        assert_eq!(expected_ticks(99, 10_000_000_000, 2), 1980);
        assert_eq!(expected_ticks(u64::MAX, u64::MAX, usize::MAX), u64::MAX);
    }

    #[test]
    fn a_few_late_ticks_and_a_little_stolen_time_are_not_worth_a_note() {
        assert_eq!(undelivered(98, 100), None);
        assert_eq!(undelivered(0, 0), None);
        assert_eq!(stolen(0, 0), None);
        assert_eq!(stolen(9_999, 1_000_000), None);
        assert!(stolen(10_000, 1_000_000).is_some_and(|note| note.contains(" 1.0 %")));
        assert!(undelivered(50, 100).is_some_and(|note| note.starts_with("50 %")));
    }
}
