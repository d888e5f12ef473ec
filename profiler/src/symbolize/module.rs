//! The table of modules: every distinct file that code was mapped from, opened at once and kept open.
//!
//! A file is known by its build id, else by device, inode and path. (Device and inode alone are not enough: on btrfs
//! the kernel shows the file system's device for all subvolumes, whose inode numbers overlap.) It is opened when the
//! first mapping of it is seen, because the process, the path or the file may be gone a millisecond later; further
//! mappings of it cost a hash look-up. While a file is open its inode cannot be reused. The number of open files is
//! bounded; the least recently used are closed, and opened again for naming if they are still the same.

pub mod interval;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use super::{
    jit::JitCode,
    open::{self, Fingerprint, Mapped},
};
use crate::{
    elf::{self, Bytes},
    model::Reason,
    perf::record::FileIdentity,
};

/// Index of a module in [`Modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleKey(pub(super) u32);

impl ModuleKey {
    /// The kernel's own text and that of its modules; addresses are absolute.
    pub const KERNEL: Self = Self(0);
    /// The vDSO of 64-bit processes; addresses are offsets in its image.
    pub const VDSO: Self = Self(1);
    /// User memory in no mapping.
    pub const NO_MAPPING: Self = Self(2);
    /// User memory of a process whose mappings could not be read.
    pub const PROCESS_GONE: Self = Self(3);
    /// Executable memory without a file. Only in mappings: frames get the module of their own process's JIT code.
    pub const ANONYMOUS: Self = Self(4);
    /// Mappings that the kernel makes: uprobe slots, 32-bit vDSO.
    pub const KERNEL_MADE: Self = Self(5);
    /// User memory of a process whose mappings may not be read.
    pub const NOT_PERMITTED: Self = Self(6);
    const FIRST_FREE: u32 = 7;

    /// The key as a number, if it is that of a file or of the vDSO.
    pub const fn index(self) -> Option<u32> {
        if self.0 == Self::VDSO.0 || self.0 >= Self::FIRST_FREE { Some(self.0) } else { None }
    }

    /// The key that was this number.
    pub const fn of_index(index: u32) -> Self {
        Self(index)
    }

    /// A key that no fixed module has.
    #[cfg(test)]
    pub fn test(n: u32) -> Self {
        Self(Self::FIRST_FREE + n)
    }
}

/// A module.
#[derive(Debug)]
pub enum Module {
    /// One of the fixed keys.
    Fixed,
    /// A file.
    File(FileModule),
    /// JIT code of one process.
    Jit(Box<JitCode>),
    /// A piece of kernel text that came or went while recording (a BPF program), by name.
    KernelSymbol(Vec<u8>),
}

/// A file that code was mapped from.
#[derive(Debug)]
pub struct FileModule {
    /// Path as first seen, without a mark of deletion.
    pub path: Box<[u8]>,
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// The last process seen to map it: a way to its debug files.
    pub pid: u32,
    state: State,
    used: u64,
}

#[derive(Debug)]
enum State {
    Open(File, Fingerprint),
    Closed(Fingerprint),
    Missing { reason: Reason, attempts: u8 },
}

/// Most attempts to open one file that could not be opened.
const MAX_ATTEMPTS: u8 = 16;
/// Most modules, about 200 bytes each. Nothing real comes near; what a program that maps files without end maps
/// beyond it counts as not mapped.
const MAX_MODULES: usize = 1 << 16;
/// Memory that has a path but is a JIT compiler's if it holds no ELF file: .NET, V8 and others map their code twice.
const MEMORY_PATHS: &[&[u8]] =
    &[b"/memfd:", b"/dev/zero", b"/SYSV", b"/dev/shm/", b"/anon_hugepage", b"anon_inode:"];

/// Device (major, minor) and inode number, as the kernel shows them for mappings.
type Inode = ((u32, u32), u64);

/// A path under which a file was mapped, and its module.
type KnownPath = (Box<[u8]>, ModuleKey);

/// All modules seen.
#[derive(Debug)]
pub struct Modules {
    pub(super) entries: Vec<Module>,
    by_build_id: HashMap<Vec<u8>, ModuleKey>,
    /// By device and inode: the paths seen, each with its module.
    by_inode: HashMap<Inode, Vec<KnownPath>>,
    /// Run-time code of which addresses want names.
    waiting: Vec<ModuleKey>,
    open: usize,
    max_open: usize,
    clock: u64,
}

impl Modules {
    /// An empty table that keeps at most `max_open` files open.
    pub fn new(max_open: usize) -> Self {
        Self {
            entries: (0..ModuleKey::FIRST_FREE).map(|_| Module::Fixed).collect(),
            by_build_id: HashMap::new(),
            by_inode: HashMap::new(),
            waiting: Vec::new(),
            open: 0,
            max_open: max_open.max(1),
            clock: 0,
        }
    }

    /// The module of a mapped file; opens it if it is new. [`ModuleKey::ANONYMOUS`] for JIT memory with a path.
    pub fn file(&mut self, mapped: Mapped<'_>) -> ModuleKey {
        match self.known(&mapped) {
            Some(key) => match self.entries.get(key.0 as usize) {
                Some(Module::File(file)) => match file.state {
                    State::Open(..) => key,
                    State::Missing { attempts, .. } if attempts >= MAX_ATTEMPTS => key,
                    // Closed or never opened: an inode number may have been reused since.
                    State::Closed(_) if matches!(mapped.identity, FileIdentity::BuildId(_)) => key,
                    State::Closed(_) | State::Missing { .. } => self.open_again(key, mapped),
                },
                _ => key,
            },
            None => self.open_new(mapped),
        }
    }

    /// The JIT code of a process that lives.
    pub fn jit(&mut self, pid: u32) -> ModuleKey {
        self.add(Module::Jit(Box::new(JitCode::of_process(pid))))
    }

    /// Notes where the code heaps of the JVM begin whose code a module is.
    pub fn set_code_base(&mut self, key: ModuleKey, address: u64) {
        if let Some(Module::Jit(code)) = self.entries.get_mut(key.0 as usize) {
            code.set_code_base(address);
        }
    }

    /// Notes that an address of a module was seen for the first time: what was made at run time is named soon.
    pub fn want(&mut self, key: ModuleKey, address: u64) {
        if let Some(Module::Jit(code)) = self.entries.get_mut(key.0 as usize)
            && code.want(address)
        {
            self.waiting.push(key);
        }
    }

    /// Names the addresses that are wanted, as far as their processes are there.
    pub fn look_up(&mut self) {
        let Self { entries, waiting, .. } = self;
        waiting.retain(|key| match entries.get_mut(key.0 as usize) {
            Some(Module::Jit(code)) => !code.look_up(),
            _ => false,
        });
    }

    /// Adds a module that is no file.
    pub fn add(&mut self, module: Module) -> ModuleKey {
        if self.entries.len() >= MAX_MODULES {
            return ModuleKey::NO_MAPPING;
        }
        self.entries.push(module);
        ModuleKey(self.entries.len() as u32 - 1)
    }

    /// A module.
    pub fn get(&self, key: ModuleKey) -> &Module {
        self.entries.get(key.0 as usize).unwrap_or(&Module::Fixed)
    }

    /// Notes that a sample hit the module, so that its file is closed late.
    pub fn touch(&mut self, key: ModuleKey) {
        self.clock += 1;
        if let Some(Module::File(file)) = self.entries.get_mut(key.0 as usize) {
            file.used = self.clock;
        }
    }

    /// Number of files held open.
    pub fn open_files(&self) -> usize {
        self.open
    }

    /// Takes a module out, for naming.
    pub fn take(&mut self, key: ModuleKey) -> Module {
        match self.entries.get_mut(key.0 as usize) {
            Some(entry) => std::mem::replace(entry, Module::Fixed),
            None => Module::Fixed,
        }
    }

    fn known(&self, mapped: &Mapped<'_>) -> Option<ModuleKey> {
        match mapped.identity {
            FileIdentity::BuildId(id) => self.by_build_id.get(id).copied(),
            FileIdentity::Inode { device, inode } => {
                let path = open::without_deleted(mapped.path);
                let same = self.by_inode.get(&(*device, *inode))?;
                same.iter().find(|(known, _)| **known == *path).map(|(_, key)| *key)
            }
        }
    }

    fn remember(&mut self, mapped: &Mapped<'_>, key: ModuleKey) {
        match mapped.identity {
            FileIdentity::BuildId(id) => {
                self.by_build_id.insert(id.clone(), key);
            }
            FileIdentity::Inode { device, inode } => {
                let path = open::without_deleted(mapped.path);
                let same = self.by_inode.entry((*device, *inode)).or_default();
                match same.iter_mut().find(|(known, _)| **known == *path) {
                    Some((_, old)) => *old = key,
                    None => same.push((path.into(), key)),
                }
            }
        }
    }

    fn open_new(&mut self, mapped: Mapped<'_>) -> ModuleKey {
        let (state, build_id) = match open_and_read(mapped) {
            Ok((file, fingerprint, headers)) => {
                if headers.is_none() && is_memory(mapped.path) {
                    self.remember(&mapped, ModuleKey::ANONYMOUS);
                    return ModuleKey::ANONYMOUS;
                }
                (State::Open(file, fingerprint), headers.and_then(|headers| headers.build_id))
            }
            Err(_) if is_memory(mapped.path) => return ModuleKey::ANONYMOUS,
            Err(reason) => (State::Missing { reason, attempts: 1 }, None),
        };
        let build_id = build_id.or_else(|| match mapped.identity {
            FileIdentity::BuildId(id) => Some(id.clone()),
            FileIdentity::Inode { .. } => None,
        });
        // Another path, or another way to tell, of a file that is known already.
        if let Some(&key) = build_id.as_ref().and_then(|id| self.by_build_id.get(id)) {
            self.remember(&mapped, key);
            if let State::Open(file, fingerprint) = state {
                self.fill(key, file, fingerprint);
            }
            return key;
        }
        let is_open = matches!(state, State::Open(..));
        if is_open {
            self.make_room();
            self.open += 1;
        }
        self.clock += 1;
        let key = self.add(Module::File(FileModule {
            path: open::without_deleted(mapped.path).into(),
            build_id: build_id.clone(),
            pid: mapped.pid,
            state,
            used: self.clock,
        }));
        self.remember(&mapped, key);
        if let Some(id) = build_id {
            self.by_build_id.insert(id, key);
        }
        key
    }

    /// A mapping of a module that is not open: opens it if it is the same file, else makes a new module.
    fn open_again(&mut self, key: ModuleKey, mapped: Mapped<'_>) -> ModuleKey {
        let opened = open_and_read(mapped);
        let Some(Module::File(module)) = self.entries.get_mut(key.0 as usize) else { return key };
        let (file, fingerprint, headers) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                if let State::Missing { reason: old, attempts } = &mut module.state {
                    (*old, *attempts) = (reason, *attempts + 1);
                }
                return key;
            }
        };
        let found_id = headers.and_then(|headers| headers.build_id);
        let is_same = match (&module.build_id, &found_id, &module.state) {
            (Some(known), Some(found), _) => known == found,
            (_, _, State::Closed(known)) => *known == fingerprint,
            // Never seen open: there is nothing to contradict.
            _ => module.build_id.is_none(),
        };
        if is_same {
            if module.build_id.is_none() {
                module.build_id = found_id;
            }
            module.pid = mapped.pid;
            self.fill(key, file, fingerprint);
            return key;
        }
        self.open_new(mapped)
    }

    fn fill(&mut self, key: ModuleKey, file: File, fingerprint: Fingerprint) {
        if matches!(self.get(key), Module::File(FileModule { state: State::Open(..), .. })) {
            return;
        }
        self.make_room();
        if let Some(Module::File(module)) = self.entries.get_mut(key.0 as usize) {
            module.state = State::Open(file, fingerprint);
            self.open += 1;
        }
    }

    /// Closes the least recently used file if there are as many open as may be.
    fn make_room(&mut self) {
        if self.open < self.max_open {
            return;
        }
        let open =
            |module: &&mut Module| matches!(module, Module::File(FileModule { state: State::Open(..), .. }));
        let used = |module: &&mut Module| match module {
            Module::File(file) => file.used,
            _ => u64::MAX,
        };
        if let Some(Module::File(file)) = self.entries.iter_mut().filter(open).min_by_key(used)
            && let State::Open(_, fingerprint) = file.state
        {
            file.state = State::Closed(fingerprint);
            self.open -= 1;
        }
    }
}

type Opened = (File, Fingerprint, Option<elf::Headers>);

fn open_and_read(mapped: Mapped<'_>) -> Result<Opened, Reason> {
    let file = open::mapped(mapped)?;
    let fingerprint = Fingerprint::of(&file).map_err(|_| Reason::FileGone)?;
    let headers = elf::read_headers(Bytes::File(&file)).ok();
    Ok((file, fingerprint, headers))
}

fn is_memory(path: &[u8]) -> bool {
    MEMORY_PATHS.iter().any(|prefix| path.starts_with(prefix))
}

impl FileModule {
    /// The open file, checked to be what was mapped; reopened if it had been closed.
    pub fn file(&self) -> Result<File, Reason> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        let (candidates, fingerprint) = match &self.state {
            State::Missing { reason, .. } => return Err(*reason),
            State::Open(file, fingerprint) => {
                (file.try_clone().into_iter().collect::<Vec<_>>(), *fingerprint)
            }
            State::Closed(fingerprint) => {
                let in_root =
                    open::process_root(self.pid).and_then(|root| open::regular_in(root.as_fd(), path));
                ([in_root, open::regular(path)].into_iter().flatten().collect(), *fingerprint)
            }
        };
        let reason = if candidates.is_empty() { Reason::FileGone } else { Reason::FileChanged };
        let is_same = |file: &File| {
            // Touched or overwritten since: only the build id can still vouch for it.
            Fingerprint::of(file).is_ok_and(|now| now == fingerprint)
                || self.build_id.is_some()
                    && elf::read_headers(Bytes::File(file)).is_ok_and(|now| now.build_id == self.build_id)
        };
        candidates.into_iter().find(is_same).ok_or(reason)
    }

    /// Path as a `Path`.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}
