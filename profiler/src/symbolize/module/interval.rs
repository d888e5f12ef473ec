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
