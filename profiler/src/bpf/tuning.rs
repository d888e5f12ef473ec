//! How closely it is looked, changed while programs run (`profiler_common::tuning`).

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use profiler_common::tuning::Tuning;

use super::{
    BpfError,
    map::{failed, take},
};

const TUNING: &str = "TUNING";

/// What the programs read.
pub struct Tuner {
    map: Array<MapData, Tuning>,
}

impl Tuner {
    /// Takes the map out of the object.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self { map: take(ebpf, TUNING)? })
    }

    /// Programs go by it from now on.
    pub fn set(&mut self, tuning: Tuning) -> Result<(), BpfError> {
        self.map.set(0, tuning, 0).map_err(failed("write", TUNING))
    }
}
