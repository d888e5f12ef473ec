//! What is to be named of an interval, taken out of a recording that goes on: naming can take seconds (the first time that a
//! large program is met), in which the recording must follow processes and drain its maps. So it is done elsewhere.

use std::collections::{HashMap, HashSet};

use super::{
    Names, Symbolizer,
    frames::RawFrame,
    module::{Module, ModuleKey, Modules},
    name_cache::NameCache,
    namer,
};
use crate::model::Profile;

impl Symbolizer {
    /// Whether the table of modules is nearly full: code of further ones would count as not mapped.
    pub const fn is_worn(&self) -> bool {
        self.modules.is_worn()
    }

    /// What is to be named of the frames since the last such call: their numbers begin anew. The recording goes on.
    pub fn take_interval(&mut self) -> Interval {
        let frames = std::mem::take(&mut self.frames).into_list();
        let interval = Interval::of(frames, &mut self.modules, self.recording);
        self.modules.forget_ended();
        interval
    }
}

/// The frames of an interval, and all that their names are found by.
#[derive(Debug)]
pub struct Interval {
    frames: Vec<RawFrame>,
    modules: HashMap<ModuleKey, Module>,
    /// Which recording it is of.
    recording: u64,
}

impl Interval {
    /// Takes what names these frames out of the table of modules, which keeps all that further intervals need.
    fn of(frames: Vec<RawFrame>, modules: &mut Modules, recording: u64) -> Self {
        let keys: HashSet<ModuleKey> = frames.iter().map(|frame| frame.module).collect();
        let modules = keys.into_iter().map(|key| (key, modules.take_interval(key))).collect();
        Self { frames, modules, recording }
    }

    /// Names them: appends modules, functions and locations to the profile. Without source lines and inlined functions.
    pub fn resolve(mut self, cache: &mut NameCache, profile: &mut Profile) -> Names {
        cache.begin_interval(self.recording);
        let take = |key| self.modules.remove(&key).unwrap_or(Module::Fixed);
        Names { placed: namer::name_all(&self.frames, take, Some(cache), profile) }
    }
}
