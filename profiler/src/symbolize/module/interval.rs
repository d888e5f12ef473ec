//! Modules for naming an interval, while those of the recording stay: the same open files, once more.

use super::{FileModule, Fingerprint, MAX_MODULES, Module, ModuleKey, Modules, State};

/// What tells the content of files apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Its build id.
    BuildId(Vec<u8>),
    /// Of one without: what the file system says of it.
    Fingerprint(Fingerprint),
}

impl Modules {
    /// Whether there is room for few more.
    pub const fn is_worn(&self) -> bool {
        self.entries.len() > MAX_MODULES / 4 * 3
    }

    /// Lets go of the run-time code of processes that were gone before the last interval ended, with the files that were open
    /// for it: no sample can be of it any more.
    pub fn forget_ended(&mut self) {
        for entry in &mut self.entries {
            if let Module::Jit(code) = entry
                && code.has_ended()
            {
                *entry = Module::Fixed;
            }
        }
    }

    /// A module for naming, while this one stays.
    pub fn take_interval(&mut self, key: ModuleKey) -> Module {
        match self.entries.get_mut(key.0 as usize) {
            Some(Module::File(file)) => Module::File(file.again()),
            Some(Module::Jit(code)) => Module::Jit(Box::new(code.take_interval())),
            Some(Module::KernelSymbol(name)) => Module::KernelSymbol(name.clone()),
            Some(Module::Fixed) | None => Module::Fixed,
        }
    }
}

impl FileModule {
    /// The same file, to be named elsewhere.
    pub fn again(&self) -> Self {
        let state = match &self.state {
            State::Open(file, fingerprint) => match file.try_clone() {
                Ok(file) => State::Open(file, *fingerprint),
                Err(_) => State::Closed(*fingerprint),
            },
            State::Closed(fingerprint) => State::Closed(*fingerprint),
            State::Missing { reason, attempts } => State::Missing { reason: *reason, attempts: *attempts },
        };
        Self {
            path: self.path.clone(),
            build_id: self.build_id.clone(),
            pid: self.pid,
            state,
            used: self.used,
        }
    }

    /// What tells its content apart from that of all other files; `None`: it was never seen.
    pub fn content(&self) -> Option<Content> {
        if let Some(id) = &self.build_id {
            return Some(Content::BuildId(id.clone()));
        }
        match &self.state {
            State::Open(_, fingerprint) | State::Closed(fingerprint) => {
                Some(Content::Fingerprint(*fingerprint))
            }
            State::Missing { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn run_time_code_goes_with_its_process_but_for_the_last_samples() {
        // Waits for its input, which does not come.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut modules = Modules::new(10);
        let (key, own) = (modules.jit(child.id()), modules.jit(std::process::id()));
        let is_known = |modules: &Modules, key| matches!(modules.get(key), Module::Jit(_));
        modules.forget_ended();
        modules.forget_ended();
        assert!(is_known(&modules, key), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
        modules.forget_ended();
        assert!(is_known(&modules, key), "its last samples may still come");
        modules.forget_ended();
        assert!(!is_known(&modules, key) && is_known(&modules, own));
    }
}
