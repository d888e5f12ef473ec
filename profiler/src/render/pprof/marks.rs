//! What the model knows and the pprof schema has no field for, said in strings that other readers can ignore.
//!
//! - A function's `system_name` is its name, except where a frame is unresolved or is of another kind than its module
//!   suggests: then it is `profiler.frame/1` and `key=value` words. Viewers show `name`, not `system_name`.
//! - A module's kind follows from its path by convention; exceptions are listed in the metadata.

use crate::model::{FrameKind, ModuleKind, Reason};

/// First word of a marked `system_name`.
const PREFIX: &str = "profiler.frame/1";

/// What a marked `system_name` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMark {
    /// Why the function has no real name.
    pub unresolved: Option<Reason>,
    /// Kind of the locations whose physical function this is, if not [`usual_frame_kind`].
    pub kind: Option<FrameKind>,
}

impl FrameMark {
    /// The `system_name` of a function of that name.
    pub fn system_name(self, name: &str) -> Option<String> {
        if self == Self::default() && !name.starts_with(PREFIX) {
            return None;
        }
        let mut text = PREFIX.to_owned();
        for (key, value) in
            [("unresolved", self.unresolved.map(Reason::key)), ("kind", self.kind.map(FrameKind::key))]
        {
            if let Some(value) = value {
                text.extend([" ", key, "=", value]);
            }
        }
        Some(text)
    }

    /// Reads a `system_name`. Words of a later version are skipped.
    pub fn parse(system_name: &[u8]) -> Self {
        let mut mark = Self::default();
        let Some(words) = std::str::from_utf8(system_name).ok().and_then(|s| s.strip_prefix(PREFIX)) else {
            return mark;
        };
        for (key, value) in words.split(' ').filter_map(|word| word.split_once('=')) {
            match key {
                "unresolved" => mark.unresolved = Reason::from_key(value),
                "kind" => mark.kind = FrameKind::ALL.into_iter().find(|kind| kind.key() == value),
                _ => {}
            }
        }
        mark
    }
}

/// The kind of code a module of that kind usually holds.
pub const fn usual_frame_kind(module: ModuleKind) -> FrameKind {
    match module {
        ModuleKind::Kernel => FrameKind::Kernel,
        ModuleKind::Native | ModuleKind::Vdso => FrameKind::Native,
        ModuleKind::Jit => FrameKind::Jit,
        ModuleKind::Unknown => FrameKind::Unknown,
    }
}

/// The kind of module that a path suggests: names in brackets are not files.
pub fn usual_module_kind(path: &str) -> ModuleKind {
    match path {
        "[vdso]" | "[vsyscall]" => ModuleKind::Vdso,
        "[unknown]" => ModuleKind::Unknown,
        "//anon" | "[heap]" | "[stack]" => ModuleKind::Jit,
        _ if path.starts_with("[jit") || path.starts_with("[anon") => ModuleKind::Jit,
        _ if path.starts_with('[') => ModuleKind::Kernel,
        _ => ModuleKind::Native,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back() {
        let mark = FrameMark { unresolved: Some(Reason::NoPerfMap), kind: Some(FrameKind::Interpreted) };
        let text = mark.system_name("x").unwrap();
        assert_eq!(text, "profiler.frame/1 unresolved=no_perf_map kind=interpreted");
        assert_eq!(FrameMark::parse(text.as_bytes()), mark);
    }

    #[test]
    fn a_function_named_like_a_mark_is_not_one() {
        let name = "profiler.frame/1 unresolved=no_symbols";
        let system_name = FrameMark::default().system_name(name).unwrap();
        assert_eq!(FrameMark::parse(system_name.as_bytes()), FrameMark::default());
        assert_eq!(FrameMark::default().system_name("main"), None);
        assert_eq!(FrameMark::parse(b"main"), FrameMark::default());
        assert_eq!(FrameMark::parse(b"profiler.frame/1 kind=new later=1 \xff"), FrameMark::default());
    }
}
