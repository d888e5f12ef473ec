//! From distinct addresses to the profile's modules, functions and locations: module by module, so that at any time
//! only one file is open for reading and its symbols in memory.

use std::collections::HashMap;

use super::{
    dwarf::Activation,
    frames::RawFrame,
    jit::JitCode,
    kallsyms::{self, KernelNames},
    module::{FileModule, Module as Source, ModuleKey, Modules},
    native::{self, Named, Target, Wanted},
    open, vdso,
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
}

/// Names all frames and adds them to the profile.
pub fn name_all(frames: &[RawFrame], mut modules: Modules, profile: &mut Profile) -> Placed {
    let mut order: Vec<u32> = (0..frames.len() as u32).collect();
    order.sort_unstable_by_key(|&id| (frames[id as usize].module, frames[id as usize].address));
    let mut namer = Namer {
        frames,
        profile,
        modules: HashMap::new(),
        functions: HashMap::new(),
        placed: Placed { locations: vec![LocationId(0); frames.len()], roots: vec![false; frames.len()] },
    };
    for group in order.chunk_by(|&a, &b| frames[a as usize].module == frames[b as usize].module) {
        let Some(&first) = group.first() else { continue };
        let key = frames[first as usize].module;
        match modules.take(key) {
            Source::File(file) => namer.file(group, file),
            Source::Jit(code) => namer.jit(group, *code),
            Source::KernelSymbol(name) => namer.kernel_symbol(group, &name),
            Source::Fixed => match key {
                ModuleKey::KERNEL => namer.kernel(group),
                ModuleKey::VDSO => namer.vdso(group),
                ModuleKey::KERNEL_MADE => namer.unresolved(group, Unresolved::KERNEL_MADE),
                ModuleKey::PROCESS_GONE => namer.unresolved(group, Unresolved::PROCESS_GONE),
                ModuleKey::NOT_PERMITTED => namer.unresolved(group, Unresolved::NOT_PERMITTED),
                _ => namer.unresolved(group, Unresolved::NO_MAPPING),
            },
        }
    }
    namer.placed
}

struct Namer<'a> {
    frames: &'a [RawFrame],
    profile: &'a mut Profile,
    modules: HashMap<Module, ModuleId>,
    functions: HashMap<Function, FunctionId>,
    placed: Placed,
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

impl Namer<'_> {
    fn file(&mut self, group: &[u32], module: FileModule) {
        let path = module.path().to_path_buf();
        let id = self.module(Module {
            path: name::clean(&module.path),
            build_id: module.build_id.as_deref().map(crate::elf::hex),
            kind: ModuleKind::Native,
        });
        let root = open::process_root(module.pid).ok().filter(|root| !open::is_own_root(root));
        let named = match module.file() {
            Ok(file) => {
                native::name(Target { file: &file, path: &path, root: root.as_ref() }, &self.wanted(group))
            }
            Err(reason) => vec![Named { chain: Err(reason), is_root: false }; group.len()],
        };
        self.place_named(group, id, FrameKind::Native, named);
    }

    fn vdso(&mut self, group: &[u32]) {
        let id = self.module(Module { path: "[vdso]".to_owned(), build_id: None, kind: ModuleKind::Vdso });
        let named = native::name_in_memory(&vdso::read_own().unwrap_or_default(), &self.wanted(group));
        self.place_named(group, id, FrameKind::Native, named);
    }

    fn jit(&mut self, group: &[u32], code: JitCode) {
        let id = self.module(Module { path: "[jit]".to_owned(), build_id: None, kind: ModuleKind::Jit });
        let addresses: Vec<u64> = group.iter().map(|&frame| self.frames[frame as usize].address).collect();
        for (&frame, named) in group.iter().zip(code.names(&addresses)) {
            self.place_at(frame, id, named.address, Answer { chain: named.chain, kind: named.kind });
        }
    }

    fn kernel(&mut self, group: &[u32]) {
        let addresses: Vec<u64> = group.iter().map(|&frame| self.frames[frame as usize].address).collect();
        let kernel = self.kernel_module("[kernel]");
        let names = match kallsyms::find(&addresses) {
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
