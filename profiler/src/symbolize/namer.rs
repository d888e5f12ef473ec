//! From distinct addresses to the profile's modules, functions and locations: module by module, so that at any time
//! only one file is open for reading and its symbols in memory.

use std::collections::HashMap;

use super::{
    dwarf::Activation,
    frames::RawFrame,
    jit::{self, JitCode},
    kallsyms::{self, KernelNames, Table},
    module::{FileModule, Module as Source, ModuleKey, Modules},
    name_cache::NameCache,
    native::{self, Named, Target, Wanted},
    open,
    runtime::jvm::wait::Wait,
    vdso,
};
use crate::model::{
    FrameKind, Function, FunctionId, Line, Location, LocationId, Module, ModuleId, ModuleKind, Profile,
    Reason, name,
};

/// Where frames got to in the profile.
#[derive(Debug)]
pub struct Placed {
    /// By frame id.
    pub locations: Vec<LocationId>,
    /// Frames that are the first of their thread, by frame id.
    pub roots: Vec<bool>,
    /// What a thread waits for that blocks in code of a runtime, by frame id, for all frames of such code.
    pub waits: HashMap<u32, Option<Wait>>,
}

/// Names all frames and adds them to the profile. `take` gives the module of a key, once. `cache`: what was found before, of
/// recordings that are named again and again.
pub fn name_all(
    frames: &[RawFrame],
    mut take: impl FnMut(ModuleKey) -> Source,
    cache: Option<&mut NameCache>,
    profile: &mut Profile,
) -> Placed {
    let order = by_module(frames);
    let mut namer = Namer::new(frames, profile);
    namer.cache = cache;
    for (key, group) in groups(frames, &order) {
        match take(key) {
            Source::File(file) => namer.file(group, file),
            Source::Jit(code) => namer.jit(group, *code),
            Source::KernelSymbol(name) => namer.kernel_symbol(group, &name),
            Source::Fixed => match key {
                ModuleKey::KERNEL => namer.kernel(group),
                ModuleKey::VDSO => namer.vdso(group),
                _ => namer.nowhere(group, key),
            },
        }
    }
    namer.placed
}

/// Adds all frames to the profile with the names that are known already: those of code that was made at run time. Of others
/// there is the module, and nothing is read.
pub fn name_known(frames: &[RawFrame], modules: &Modules, profile: &mut Profile) -> Placed {
    let order = by_module(frames);
    let mut namer = Namer::new(frames, profile);
    for (key, group) in groups(frames, &order) {
        match modules.get(key) {
            Source::Jit(code) => {
                let id = namer.jit_module();
                let named = code.known(&namer.addresses(group));
                namer.place_jit(group, id, named);
            }
            Source::File(file) => {
                let id = namer.module(file_module(file));
                namer.whole(group, id, FrameKind::Native);
            }
            Source::KernelSymbol(name) => namer.kernel_symbol(group, name),
            Source::Fixed => match key {
                ModuleKey::KERNEL => {
                    let id = namer.kernel_module("[kernel]");
                    namer.whole(group, id, FrameKind::Kernel);
                }
                ModuleKey::VDSO => {
                    let id = namer.module(vdso_module());
                    namer.whole(group, id, FrameKind::Native);
                }
                _ => namer.nowhere(group, key),
            },
        }
    }
    namer.placed
}

/// The ids of all frames by module and address.
fn by_module(frames: &[RawFrame]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..frames.len() as u32).collect();
    order.sort_unstable_by_key(|&id| (frames[id as usize].module, frames[id as usize].address));
    order
}

/// The ids of each module.
fn groups<'a>(frames: &'a [RawFrame], order: &'a [u32]) -> impl Iterator<Item = (ModuleKey, &'a [u32])> {
    let module = |id: u32| frames[id as usize].module;
    let groups = order.chunk_by(move |&a, &b| module(a) == module(b));
    groups.filter_map(move |group| Some((module(*group.first()?), group)))
}

fn file_module(file: &FileModule) -> Module {
    Module {
        path: name::clean(&file.path),
        build_id: file.build_id.as_deref().map(crate::elf::hex),
        kind: ModuleKind::Native,
    }
}

fn vdso_module() -> Module {
    Module { path: "[vdso]".to_owned(), build_id: None, kind: ModuleKind::Vdso }
}

/// Names in a file, one for each that is wanted. `lines`: with source lines and inlined functions.
///
/// # Errors
/// Why it cannot be opened.
fn name_file(module: &FileModule, wanted: &[Wanted], lines: bool) -> Result<Vec<Named>, Reason> {
    let root = open::process_root(module.pid).ok().filter(|root| !open::is_own_root(root));
    let file = module.file()?;
    Ok(native::name(Target { file: &file, path: module.path(), root: root.as_ref(), lines }, wanted))
}

struct Namer<'a> {
    frames: &'a [RawFrame],
    profile: &'a mut Profile,
    modules: HashMap<Module, ModuleId>,
    functions: HashMap<Function, FunctionId>,
    placed: Placed,
    cache: Option<&'a mut NameCache>,
}

/// A module of which nothing has a name.
struct Unresolved {
    path: &'static str,
    kind: ModuleKind,
    reason: Reason,
}

impl Unresolved {
    const NO_MAPPING: Self = Self { path: "[unknown]", kind: ModuleKind::Unknown, reason: Reason::NoMapping };
    const PROCESS_GONE: Self =
        Self { path: "[unknown]", kind: ModuleKind::Unknown, reason: Reason::ProcessGone };
    const NOT_PERMITTED: Self =
        Self { path: "[unknown]", kind: ModuleKind::Unknown, reason: Reason::PermissionDenied };
    const KERNEL_MADE: Self =
        Self { path: "[kernel mapping]", kind: ModuleKind::Vdso, reason: Reason::NoSymbols };
}

/// What one frame becomes.
struct Answer {
    chain: Result<Vec<Activation>, Reason>,
    kind: FrameKind,
}

impl<'a> Namer<'a> {
    fn new(frames: &'a [RawFrame], profile: &'a mut Profile) -> Self {
        let placed = Placed {
            locations: vec![LocationId(0); frames.len()],
            roots: vec![false; frames.len()],
            waits: HashMap::new(),
        };
        Self { frames, profile, modules: HashMap::new(), functions: HashMap::new(), placed, cache: None }
    }

    fn file(&mut self, group: &[u32], module: FileModule) {
        let id = self.module(file_module(&module));
        let wanted = self.wanted(group);
        let named = match (&mut self.cache, module.content()) {
            (Some(cache), Some(content)) => {
                cache.file(content, &wanted, |missing| name_file(&module, missing, false))
            }
            (cache, _) => name_file(&module, &wanted, cache.is_none())
                .unwrap_or_else(|reason| vec![Named::unresolved(reason); wanted.len()]),
        };
        self.place_named(group, id, FrameKind::Native, named);
    }

    fn vdso(&mut self, group: &[u32]) {
        let id = self.module(vdso_module());
        let named = native::name_in_memory(&vdso::read_own().unwrap_or_default(), &self.wanted(group));
        self.place_named(group, id, FrameKind::Native, named);
    }

    fn jit(&mut self, group: &[u32], code: JitCode) {
        let id = self.jit_module();
        let named = code.names(&self.addresses(group));
        self.place_jit(group, id, named);
    }

    fn jit_module(&mut self) -> ModuleId {
        self.module(Module { path: "[jit]".to_owned(), build_id: None, kind: ModuleKind::Jit })
    }

    fn place_jit(&mut self, group: &[u32], id: ModuleId, named: Vec<jit::Named>) {
        for (&frame, named) in group.iter().zip(named) {
            self.placed.waits.insert(frame, named.wait);
            self.place_at(frame, id, named.address, Answer { chain: named.chain, kind: named.kind });
        }
    }

    fn addresses(&self, group: &[u32]) -> Vec<u64> {
        group.iter().map(|&frame| self.frames[frame as usize].address).collect()
    }

    /// One function for all of a module.
    fn whole(&mut self, group: &[u32], id: ModuleId, kind: FrameKind) {
        let name = self.profile.modules[id.index()].name().to_owned();
        for &frame in group {
            self.place(frame, id, Answer { chain: Ok(vec![plain(name.clone())]), kind });
        }
    }

    /// Frames in no code that is known.
    fn nowhere(&mut self, group: &[u32], key: ModuleKey) {
        self.unresolved(
            group,
            match key {
                ModuleKey::KERNEL_MADE => Unresolved::KERNEL_MADE,
                ModuleKey::PROCESS_GONE => Unresolved::PROCESS_GONE,
                ModuleKey::NOT_PERMITTED => Unresolved::NOT_PERMITTED,
                _ => Unresolved::NO_MAPPING,
            },
        );
    }

    fn kernel(&mut self, group: &[u32]) {
        let addresses = self.addresses(group);
        let kernel = self.kernel_module("[kernel]");
        let names = match &mut self.cache {
            Some(cache) => cache.kernel(&addresses, kallsyms::modules(), Table::read),
            None => kallsyms::find(&addresses),
        };
        let names = match names {
            KernelNames::Found(names) => names,
            KernelNames::Hidden => {
                for &frame in group {
                    let chain = Err(Reason::KernelHidden);
                    self.place(frame, kernel, Answer { chain, kind: FrameKind::Kernel });
                }
                return;
            }
        };
        for (&frame, found) in group.iter().zip(names) {
            let module = match found.as_ref().and_then(|found| found.module.as_ref()) {
                Some(module) => self.kernel_module(&format!("[{}]", name::clean(module))),
                None => kernel,
            };
            let chain = found.map(|found| vec![plain(name::clean(&found.name))]).ok_or(Reason::NoSymbolFound);
            self.place(frame, module, Answer { chain, kind: FrameKind::Kernel });
        }
    }

    fn kernel_symbol(&mut self, group: &[u32], raw: &[u8]) {
        let is_bpf = raw.starts_with(b"bpf_");
        let module = self.kernel_module(if is_bpf { "[bpf]" } else { "[kernel]" });
        for &frame in group {
            let chain = Ok(vec![plain(name::clean(raw))]);
            self.place(frame, module, Answer { chain, kind: FrameKind::Kernel });
        }
    }

    fn unresolved(&mut self, group: &[u32], what: Unresolved) {
        let id = self.module(Module { path: what.path.to_owned(), build_id: None, kind: what.kind });
        for &frame in group {
            let kind = FrameKind::Unknown;
            self.place(frame, id, Answer { chain: Err(what.reason), kind });
        }
    }

    fn kernel_module(&mut self, path: &str) -> ModuleId {
        self.module(Module { path: path.to_owned(), build_id: None, kind: ModuleKind::Kernel })
    }

    fn wanted(&self, group: &[u32]) -> Vec<Wanted> {
        let frame = |&id: &u32| self.frames[id as usize];
        group.iter().map(frame).map(|f| Wanted { offset: f.address, outermost: f.outermost }).collect()
    }

    fn place_named(&mut self, group: &[u32], module: ModuleId, kind: FrameKind, named: Vec<Named>) {
        for (&frame, named) in group.iter().zip(named) {
            self.placed.roots[frame as usize] = named.is_root;
            self.place(frame, module, Answer { chain: named.chain, kind });
        }
    }

    fn place(&mut self, frame: u32, module: ModuleId, answer: Answer) {
        self.place_at(frame, module, self.frames[frame as usize].address, answer);
    }

    fn place_at(&mut self, frame: u32, module: ModuleId, address: u64, answer: Answer) {
        let lines = match answer.chain {
            Ok(chain) => chain
                .into_iter()
                .map(|activation| Line {
                    line: activation.line,
                    function: self.function(Function {
                        name: activation.name,
                        file: activation.file,
                        unresolved: None,
                    }),
                })
                .collect(),
            Err(reason) => {
                let name = self.stand_in(module, address, reason);
                let function = self.function(Function { name, file: None, unresolved: Some(reason) });
                vec![Line { function, line: 0 }]
            }
        };
        let id = LocationId(self.profile.locations.len() as u32);
        self.profile.locations.push(Location { module, address, lines, kind: answer.kind });
        self.placed.locations[frame as usize] = id;
    }

    /// The name of a frame without one. Addresses are shown where they lead somewhere: an offset in a file can be
    /// looked up later, one in unknown memory or in a kernel that hides its addresses cannot.
    fn stand_in(&self, module: ModuleId, address: u64, reason: Reason) -> String {
        let module = &self.profile.modules[module.index()];
        match reason {
            _ if module.kind == ModuleKind::Unknown || reason == Reason::KernelHidden => {
                format!("{} [{}]", module.name(), reason.words())
            }
            _ => format!("{}+{address:#x} [{}]", module.name(), reason.words()),
        }
    }

    fn module(&mut self, module: Module) -> ModuleId {
        let modules = &mut self.profile.modules;
        *self.modules.entry(module).or_insert_with_key(|module| {
            modules.push(module.clone());
            ModuleId(modules.len() as u32 - 1)
        })
    }

    fn function(&mut self, function: Function) -> FunctionId {
        let functions = &mut self.profile.functions;
        *self.functions.entry(function).or_insert_with_key(|function| {
            functions.push(function.clone());
            FunctionId(functions.len() as u32 - 1)
        })
    }
}

fn plain(name: String) -> Activation {
    Activation { name, file: None, line: 0 }
}
