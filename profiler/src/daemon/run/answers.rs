//! What the core does beside recording: answers, passes windows on, keeps the budget, reads the configuration again, says how
//! it is.

use super::{Core, Event, Reload, budget, depth, limits, to_usize};
use crate::{
    daemon::{
        config::Sampling,
        control::Command,
        demand,
        governor::{Use, time_of},
        notify::Tell,
        options,
        state::{Phase, Status},
        writer::Done,
    },
    host::cpus,
    session::{Closeness, continuous::RawWindow, monotonic_ns},
};

impl Core {
    /// What is the same whatever goes on.
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Done(done) => self.done(*done),
            Event::Watchdog => self.tell(&[Tell::Watchdog]),
            Event::Command(Command::Profile(request, permit, reply)) => {
                demand::start(request, self.governor.closeness().frequency_hz, permit, reply);
            }
            // It records already.
            Event::Command(Command::Start(reply)) => _ = reply.send(Ok(())),
            Event::Command(Command::Stop(_) | Command::Flush(_)) | Event::End | Event::Reload => {}
        }
    }

    /// Takes in what the window cost: it may be looked more or less closely from now on.
    pub(super) fn govern(&mut self, raw: &RawWindow) {
        // Of a window that was ended early, what ending it costs is much, and says nothing of what goes on.
        if raw.duration() < self.config.window.length / 2 {
            return;
        }
        let cost = raw.cost();
        let memory = raw.memory();
        let used = Use {
            cpu_ns: cost.user_cpu_ns + cost.system_cpu_ns + cost.ebpf_run_ns,
            of_ns: time_of(cpus::online().len(), raw.duration()),
            memory,
        };
        if memory > self.config.budget.memory / 100 * 85
            && let Some(thread) = &self.thread
        {
            thread.trim();
        }
        if self.governor.window(used) {
            log::warn!("{}", self.governor.why().unwrap_or("looking as closely as configured again"));
        }
    }

    /// Passes a window on.
    pub(super) fn window(&mut self, mut raw: RawWindow) {
        self.number += 1;
        raw.set_number(self.number);
        if self.governor.step() != 0
            && let Some(why) = self.governor.why()
        {
            raw.note(why.to_owned());
        }
        let is_passed_on = self.thread.as_ref().is_some_and(|thread| thread.window(raw));
        if !is_passed_on {
            self.own.windows_not_kept += 1;
            self.trouble(format!("window {} is lost: those before it are still being written", self.number));
            if let Some(reply) = self.flushed.remove(&self.number) {
                _ = reply.send(Err("the window is lost: those before it are still being written".to_owned()));
            }
        }
    }

    /// A window was made, and kept or not.
    pub(super) fn done(&mut self, done: Done) {
        let Done { number, end_unix_ns, problem, notes, store_bytes, cost, losses, series } = done;
        notes.iter().for_each(|note| log::warn!("{note}"));
        if let Some(thread) = &mut self.thread {
            thread.send_settings();
        }
        let reply = self.flushed.remove(&number);
        match &problem {
            None => {
                self.own.windows_written += 1;
                self.own.last_window_unix_ns = end_unix_ns;
                self.trouble = None;
            }
            Some(error) => {
                self.own.windows_not_kept += 1;
                self.trouble(format!("window {number} is not kept: {error}"));
            }
        }
        if let Some(reply) = reply {
            _ = reply.send(problem.map_or(Ok(number), |error| Err(error.to_string())));
        }
        let own = &mut self.own;
        own.ebpf_run_ns += cost.ebpf_run_ns;
        own.ebpf_runs += cost.ebpf_runs;
        own.user_cpu_ns += cost.user_cpu_ns;
        own.system_cpu_ns += cost.system_cpu_ns;
        own.rss_bytes = cost.recording_peak_rss_bytes;
        own.map_bytes = cost.kernel_map_bytes;
        for (cause, count) in losses {
            *own.losses.entry(cause).or_default() += count;
        }
        own.store_bytes = store_bytes;
        self.publish();
        log::debug!("window {number}: {series} series, {store_bytes} bytes kept");
    }

    /// How closely to look.
    pub(super) fn closeness(&self) -> Closeness {
        let mut closeness = self.governor.closeness();
        let min_block = self.config.sampling.min_block;
        closeness.tuning.min_block_ns = u64::try_from(min_block.as_nanos()).unwrap_or(u64::MAX);
        closeness
    }

    /// Reads the configuration again.
    pub(super) fn reload(&mut self) -> Reload {
        self.tell(&[Tell::Reloading { monotonic_ns: monotonic_ns() }]);
        let reload = match self.config.reload() {
            Ok(changes) => {
                for change in &changes.pending {
                    log::warn!(
                        "{} = {}: takes effect when the daemon is started again",
                        change.setting,
                        change.new
                    );
                }
                for change in &changes.applied {
                    log::warn!("{}: {} instead of {}", change.setting, change.new, change.old);
                }
                let reload = changed(&self.config.sampling, &changes.config.sampling);
                self.config = changes.config;
                self.refused = None;
                self.configure();
                reload
            }
            Err(error) => {
                let why = format!("the configuration is not used, the one before is: {error}");
                log::warn!("{why}");
                self.refused = Some(why);
                self.publish();
                Reload::Elsewhere
            }
        };
        self.tell(&[Tell::Ready]);
        reload
    }

    pub(super) fn configure(&mut self) {
        let config = &self.config;
        self.governor.configure(budget(config), config.sampling.frequency_hz, depth(config));
        self.state.registry.set_most_series(to_usize(config.metrics.max_series));
        if let Some(thread) = &mut self.thread {
            thread.set_limits(limits(config));
            thread.set_max_series(to_usize(config.window.max_series));
        }
        self.publish();
    }

    pub(super) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
        self.publish();
    }

    pub(super) fn trouble(&mut self, what: String) {
        log::warn!("{what}");
        self.trouble = Some(what);
        self.publish();
    }

    /// Says how it is.
    pub(super) fn publish(&mut self) {
        self.own.governor_step = self.governor.step() as u64;
        self.own.governor_changes = self.governor.changes();
        self.own.frequency_hz = self.governor.closeness().frequency_hz;
        self.own.recording = self.phase == Phase::Recording;
        self.state.publish(Status {
            phase: self.phase,
            rates: options::rates(&self.config, self.closeness()),
            governor: self.governor.why().map(str::to_owned),
            trouble: self.refused.clone().or_else(|| self.trouble.clone()),
            last_window: self.number,
            own: self.own.clone(),
        });
    }

    pub(super) fn tell(&self, what: &[Tell]) {
        if let Err(error) = self.notify.tell(what) {
            log::debug!("systemd cannot be told: {error}");
        }
    }

    /// Waits until what was taken is written.
    pub(super) async fn finish(&mut self) {
        self.set_phase(Phase::Stopping);
        if let Some(thread) = self.thread.take() {
            thread.finish();
        }
        while let Ok(done) = self.done.try_recv() {
            self.done(done);
        }
    }
}

/// What has to be done for other settings of sampling.
fn changed(before: &Sampling, after: &Sampling) -> Reload {
    let Sampling { frequency_hz, offcpu, min_block: _, stack_depth: _ } = before;
    // Without a rate there is nothing that samples.
    let is_other = (*frequency_hz == 0) != (after.frequency_hz == 0) || *offcpu != after.offcpu;
    match before == after {
        true => Reload::Elsewhere,
        false if is_other => Reload::Recording,
        false => Reload::Closeness,
    }
}
