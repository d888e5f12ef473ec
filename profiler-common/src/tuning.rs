//! How closely it is looked, as far as that can change while programs run: slot 0 of the map `TUNING`.

/// [`Tuning::blocked_every`]: no blocked time has its stack.
pub const NO_STACKS: u32 = u32::MAX;

/// How closely it is looked. All zero, as the map begins: as closely as can be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// One in so many blocked times has its stack; 0: each, [`NO_STACKS`]: none. All are counted.
    pub blocked_every: u32,
    /// Most frames of a user stack that is walked by tables, some more at most; 0: as many as there is room for.
    pub depth: u32,
    /// Shorter blocked times are counted without their stacks, ns, as those are that [`WaitConfig::min_block_ns`] says.
    ///
    /// [`WaitConfig::min_block_ns`]: crate::sched::wait::WaitConfig::min_block_ns
    pub min_block_ns: u64,
}

const _: () = assert!(size_of::<Tuning>() == 16);

#[cfg(feature = "user")]
// SAFETY: repr(C), integers only, no padding (size asserted above); every bit pattern is valid.
unsafe impl aya::Pod for Tuning {}
