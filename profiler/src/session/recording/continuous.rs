//! A recording that has no end: taken out interval by interval, so that memory is that of what is going on.

use super::Recording;
use crate::{
    bpf::load::Kernel,
    session::{
        SessionError,
        build::{BuildOptions, Taken},
        collect::Collector,
        continuous::places::Places,
    },
    symbolize::runtime::jvm::open,
};

impl Recording<'_> {
    /// Notes from now on where processes belong.
    pub fn follow_places(&mut self) {
        self.places = Some(Places::default());
    }

    /// Where processes belong, if it is noted.
    pub const fn places(&mut self) -> Option<&mut Places> {
        self.places.as_mut()
    }

    /// Whether a process has the library of a JVM mapped.
    pub fn is_jvm(&mut self, pid: u32) -> bool {
        let mappings = self.symbolizer.code_mappings(pid).unwrap_or_default();
        mappings.iter().any(|mapping| self.symbolizer.is_named(mapping.module, open::LIBRARY))
    }

    /// The object.
    pub(in crate::session) const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Limitations that showed up so far.
    pub(in crate::session) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What drives the samples of `cpu`.
    pub(in crate::session) fn sampler(&self) -> Option<&'static str> {
        self.probes.iter().find_map(|probe| match probe {
            crate::probe::Probe::Cpu(probe) => Some(probe.sampler().clock().name()),
            _ => None,
        })
    }

    /// What was recorded since the last such call, or since the beginning, taken out: there is no whole at the end. To be named
    /// elsewhere.
    ///
    /// # Errors
    /// Those of the maps.
    pub fn take_interval(&mut self) -> Result<Taken, SessionError> {
        self.end_window()?;
        let collector = Collector::new(self.sizing.longest_window_ns);
        self.collected_from_ns = self.window_start_ns;
        Ok(Taken {
            collector: std::mem::replace(&mut self.collector, collector),
            frames: self.symbolizer.take_interval(),
            options: BuildOptions::of(self.options),
        })
    }
}
