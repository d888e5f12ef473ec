//! Why an address has no name. "No symbol" is data: such a frame stays visible and says why.

use serde::{Deserialize, Serialize};

/// The reason of an unresolved frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The module has no symbol table that covers code (stripped, no separate debug file found).
    NoSymbols,
    /// The module has symbols, but none covers this address.
    NoSymbolFound,
    /// The address lies in no mapping of its process (a broken frame-pointer chain often ends so).
    NoMapping,
    /// The process was gone before its mappings could be read.
    ProcessGone,
    /// The module's file was gone before it could be opened.
    FileGone,
    /// The file at the module's path is not the one that was mapped (other build id or inode).
    FileChanged,
    /// The module's file may not be opened.
    PermissionDenied,
    /// The module's file is not an ELF file that can be read.
    BadElf,
    /// Executable memory without a file, and no perf map that names it (a JIT compiler without perf support).
    NoPerfMap,
    /// There is a perf map, but it has no entry for this address.
    NotInPerfMap,
    /// A language runtime has no code at this address (any more).
    CodeFreed,
    /// A language runtime's code or tables changed while they were read.
    CodeChanged,
    /// A language runtime of a version whose tables are not known.
    UnknownRuntime,
    /// Kernel addresses are hidden (`kernel.kptr_restrict`, `kernel.perf_event_paranoid`).
    KernelHidden,
    /// The symbol reader failed on the module.
    SymbolizerFailed,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 15] = [
        Self::NoSymbols,
        Self::NoSymbolFound,
        Self::NoMapping,
        Self::ProcessGone,
        Self::FileGone,
        Self::FileChanged,
        Self::PermissionDenied,
        Self::BadElf,
        Self::NoPerfMap,
        Self::NotInPerfMap,
        Self::CodeFreed,
        Self::CodeChanged,
        Self::UnknownRuntime,
        Self::KernelHidden,
        Self::SymbolizerFailed,
    ];

    /// Stable key in JSON and pprof (snake_case).
    pub const fn key(self) -> &'static str {
        match self {
            Self::NoSymbols => "no_symbols",
            Self::NoSymbolFound => "no_symbol_found",
            Self::NoMapping => "no_mapping",
            Self::ProcessGone => "process_gone",
            Self::FileGone => "file_gone",
            Self::FileChanged => "file_changed",
            Self::PermissionDenied => "permission_denied",
            Self::BadElf => "bad_elf",
            Self::NoPerfMap => "no_perf_map",
            Self::NotInPerfMap => "not_in_perf_map",
            Self::CodeFreed => "code_freed",
            Self::CodeChanged => "code_changed",
            Self::UnknownRuntime => "unknown_runtime",
            Self::KernelHidden => "kernel_hidden",
            Self::SymbolizerFailed => "symbolizer_failed",
        }
    }

    /// The reason of that key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.key() == key)
    }

    /// In words, as shown in brackets behind an unresolved frame: `libfoo.so+0x1f3 [no symbols]`.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NoSymbols => "no symbols",
            Self::NoSymbolFound => "no symbol found",
            Self::NoMapping => "no mapping",
            Self::ProcessGone => "process gone",
            Self::FileGone => "file gone",
            Self::FileChanged => "file changed",
            Self::PermissionDenied => "permission denied",
            Self::BadElf => "bad ELF",
            Self::NoPerfMap => "no perf map",
            Self::NotInPerfMap => "not in perf map",
            Self::CodeFreed => "code freed",
            Self::CodeChanged => "code changed",
            Self::UnknownRuntime => "unknown runtime",
            Self::KernelHidden => "kernel symbols hidden",
            Self::SymbolizerFailed => "symbolizer failed",
        }
    }
}
