//! What a recording *is*, independent of where it came from and how it is shown. No I/O, no addresses to resolve.
//!
//! `session` builds a [`Profile`] from the kernel's maps, `render` shows it, `render::pprof` stores and re-reads it.

pub mod cost;
pub mod event;
pub mod filter;
pub mod java;
pub mod losses;
pub mod meta;
pub mod name;
pub mod named;
pub mod net;
pub mod packets;
pub mod profile;
pub mod reason;
pub mod sched;
pub mod stat;
pub mod syscalls;
pub mod when;
pub mod window;

pub use cost::Cost;
pub use event::{SampleType, Unit};
pub use losses::Losses;
pub use meta::Meta;
pub use profile::{
    Frame, FrameKind, Function, FunctionId, Line, Location, LocationId, Module, ModuleId, ModuleKind,
    Profile, Sample, Stack, StackEnd, StackId, Thread, ThreadId,
};
pub use reason::Reason;
