//! The end of a recording: what is left is drained, losses and cost are taken down, names are found.

use profiler_common::loss::Loss;

use super::{Recording, Stop};
use crate::{
    host::{cpu_times::stolen_ns, cpus},
    model::{Cost, Losses},
    perf::clock::monotonic_ns,
    probe::{Probe, net::NetProbe},
    session::{
        Outcome, SessionError,
        build::{BuildOptions, build},
        cost::{cpu_ns, peak_rss_bytes, since},
        facts::{Facts, left_out, meta},
        unwinding::Unwinding,
    },
    symbolize::Asked,
};

/// What the reader is to know of a JVM that was asked for names.
fn of_asked(asked: &Asked) -> String {
    let Asked { pid, unknown, outcome } = asked;
    match outcome {
        Ok(()) => format!(
            "JVM {pid} was told to write the names of its code to a perf map (--allow-attach), which ran code in it: {unknown}"
        ),
        Err(error) => format!(
            "the code of JVM {pid} has no names ({unknown}), and it was not had to write them (--allow-attach): {error}; {}",
            error.mend()
        ),
    }
}

impl Recording<'_> {
    /// Stops sampling.
    pub fn end(&mut self) -> Result<(), SessionError> {
        if self.end_ns == 0 {
            self.samples.end_spans(monotonic_ns())?;
            for probe in &mut self.probes {
                probe.disable(&mut self.samples)?;
            }
            if let Some(owners) = &mut self.owners {
                owners.disable();
            }
            self.end_ns = monotonic_ns();
            self.stolen_ns = stolen_ns().saturating_sub(self.stolen_before_ns);
        }
        Ok(())
    }

    /// Stops sampling, drains what is left and resolves all names.
    pub fn finish(mut self, stop: Stop) -> Result<Outcome, SessionError> {
        self.end()?;
        let end_ns = self.end_ns;
        let mut window = self.samples.finish(end_ns)?;
        self.settle(&mut window)?;
        self.read_events();
        self.add(&window);
        self.kernel.flush_log();
        drop(window);
        if self.options.allow_attach {
            self.notes.extend(self.symbolizer.ask_for_maps().iter().map(of_asked));
        }
        let mut losses = self.losses()?;
        self.note_new_cpus();
        let mut meta = meta(Facts {
            options: self.options,
            probes: &self.probes,
            samples: &self.samples,
            cpus: self.cpus.len(),
            start_unix_ns: self.start_unix_ns,
            duration_ns: end_ns.saturating_sub(self.start_ns),
            window_ns: self.collector.window_ns(),
            stolen_ns: self.stolen_ns,
            notes: std::mem::take(&mut self.notes),
        })?;
        if self.options.events.iter().any(|chosen| chosen.event.is_timed()) {
            let missed = meta.expected_ticks.saturating_sub(meta.ticks);
            losses.counters.insert("ticks_not_delivered".to_owned(), missed);
        }
        left_out(&self.probes, &self.samples, &mut losses, &mut meta)?;
        let mut cost = self.recording_cost();
        let cpu_before_naming = cpu_ns();
        // The kernel side is done: its memory and descriptors are given back before names are read.
        let Self {
            collector,
            symbolizer,
            options,
            kernel,
            samples,
            owners,
            targets,
            sideband,
            unwinding,
            ..
        } = self;
        drop((samples, owners, targets, kernel, sideband, unwinding));
        let built = build(&collector, symbolizer, &BuildOptions::of(options));
        let mut profile = built.profile;
        meta.idle_samples = built.idle_samples;
        losses.unresolved = std::mem::take(&mut profile.losses.unresolved);
        let cpu = cpu_ns();
        cost.setup_and_naming_cpu_ns += (cpu.0 + cpu.1) - (cpu_before_naming.0 + cpu_before_naming.1);
        cost.peak_rss_bytes = peak_rss_bytes();
        cost.naming_ns = monotonic_ns().saturating_sub(end_ns);
        (profile.meta, profile.losses, profile.cost) = (meta, losses, cost);
        Ok(Outcome { profile, stop })
    }

    fn note_new_cpus(&mut self) {
        for cpu in cpus::online().into_iter().filter(|cpu| !self.cpus.contains(cpu)) {
            self.notes.push(format!("CPU {cpu} came online while recording: it was not sampled"));
        }
    }

    /// What was lost until now.
    pub(in crate::session) fn losses(&self) -> Result<Losses, SessionError> {
        let mut losses = Losses::default();
        for (loss, count) in self.samples.losses()? {
            losses.counters.insert(loss.name().to_owned(), count);
        }
        losses.counters.insert("process_events_lost".to_owned(), self.lost_events);
        if self.owners.is_some() {
            // An owner that is not known, or not known to be gone.
            let missed = NetProbe::missed(&self.kernel);
            let of_probes: u64 = self.probes.iter().filter_map(Probe::missed).sum();
            losses.counters.insert("socket_programs_missed".to_owned(), missed.saturating_sub(of_probes));
        }
        if let Some(unwinding) = &self.unwinding {
            let stats = unwinding.stats();
            losses.counters.insert("unwind_tables_failed".to_owned(), stats.failed);
            losses.counters.insert("unwind_memory_full".to_owned(), stats.without_room);
            losses.counters.insert("unwind_tables_evicted".to_owned(), stats.evicted);
        }
        losses.lost_sample_causes =
            [Loss::CountsFull, Loss::NoScratch].into_iter().map(|loss| loss.name().to_owned()).collect();
        Ok(losses)
    }

    /// What it has cost until now.
    pub(in crate::session) fn recording_cost(&self) -> Cost {
        let ebpf = self.run_time.as_ref().map(|run_time| run_time.read(&self.kernel.ebpf));
        let unwind = self.unwinding.as_ref().map(Unwinding::stats).unwrap_or_default();
        Cost {
            kernel_map_bytes: self.kernel.map_memory()
                + self.samples.map_memory()
                + self.targets.map_memory()
                + self.owners.as_ref().map_or(0, |owners| owners.memory())
                + self.unwinding.as_ref().map_or(0, Unwinding::memory),
            unwind_tables: unwind.tables,
            unwind_bytes: unwind.bytes,
            unwind_tables_ns: unwind.built_ns,
            ..since(&self.cost, self.cpu_at_start, ebpf)
        }
    }
}
