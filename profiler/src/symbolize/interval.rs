//! What is to be named of an interval, taken out of a recording that goes on: naming can take seconds (the first time that a
//! large program is met), in which the recording must follow processes and drain its maps. So it is done elsewhere.

use std::collections::HashMap;

use super::{
    Names,
    frames::RawFrame,
    module::{Module, ModuleKey, Modules},
    name_cache::NameCache,
    namer,
};
use crate::model::Profile;

/// The frames of an interval, and all that their names are found by.
#[derive(Debug)]
pub struct Interval {
    frames: Vec<RawFrame>,
    modules: HashMap<ModuleKey, Module>,
}

impl Interval {
    /// Takes what names these frames out of the table of modules, which keeps all that further intervals need.
    pub(super) fn of(frames: Vec<RawFrame>, modules: &mut Modules) -> Self {
        let keys = namer::modules_of(&frames);
        let modules = keys.into_iter().map(|key| (key, modules.take_interval(key))).collect();
        Self { frames, modules }
    }

    /// Names them: appends modules, functions and locations to the profile. Without source lines and inlined functions.
    pub fn resolve(mut self, cache: &mut NameCache, profile: &mut Profile) -> Names {
        cache.begin_interval();
        let take = |key| self.modules.remove(&key).unwrap_or(Module::Fixed);
        Names { placed: namer::name_all(&self.frames, take, Some(cache), profile) }
    }
}
