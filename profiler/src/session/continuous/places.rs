//! Where processes belong, by their control groups: found out while they live, because afterwards nobody knows.
//!
//! A child is where its parent is until it executes a program: managers of services and containers move it before that.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    host::{container, process},
    model::window::Place,
    perf::record::ProcessEvent,
};

/// Most processes that are known at a time; of others it is looked up when it is asked for.
const MAX_PROCESSES: usize = 65_536;

#[derive(Debug)]
struct Known {
    place: Arc<Place>,
    ended: bool,
    /// It was found out in an earlier window: the process can have been moved.
    stale: bool,
}

/// The processes, and where they belong.
#[derive(Debug, Default)]
pub struct Places {
    known: HashMap<u32, Known>,
    /// By path, so that each is kept once.
    places: HashSet<Arc<Place>>,
}

impl Places {
    /// Takes in a process event.
    pub fn observe(&mut self, event: &ProcessEvent) {
        match event {
            ProcessEvent::Fork { pid, parent_pid, .. } if pid != parent_pid => {
                let place = self.of(*parent_pid);
                self.set(*pid, place);
            }
            ProcessEvent::Comm { pid, exec: true, .. } => {
                if let Some(place) = self.read(*pid) {
                    self.set(*pid, place);
                }
            }
            ProcessEvent::Exit { pid, tid, .. } if pid == tid => {
                if let Some(known) = self.known.get_mut(pid) {
                    known.ended = true;
                }
            }
            _ => {}
        }
    }

    /// Where a process belongs; the root, if it is not known.
    pub fn of(&mut self, pid: u32) -> Arc<Place> {
        let known = self.known.get(&pid).map(|known| (Arc::clone(&known.place), known.stale));
        let place = match known {
            Some((place, false)) => return place,
            // Of one that is gone meanwhile it stays what it was.
            Some((place, true)) => self.read(pid).unwrap_or(place),
            None => self.read(pid).unwrap_or_else(|| self.keep(container::place("/"))),
        };
        self.set(pid, Arc::clone(&place));
        place
    }

    /// A window has ended: forgets processes that ended before, and looks at each of the others again when it is next asked for,
    /// which can have been moved.
    pub fn window_ended(&mut self) {
        self.known.retain(|_, known| !known.ended);
        self.known.values_mut().for_each(|known| known.stale = true);
        self.places.retain(|place| Arc::strong_count(place) > 1);
    }

    fn set(&mut self, pid: u32, place: Arc<Place>) {
        if self.known.len() < MAX_PROCESSES || self.known.contains_key(&pid) {
            self.known.insert(pid, Known { place, ended: false, stale: false });
        }
    }

    /// What /proc says; `None`: there is no such process.
    fn read(&mut self, pid: u32) -> Option<Arc<Place>> {
        Some(self.keep(process::place(pid)?))
    }

    fn keep(&mut self, place: Place) -> Arc<Place> {
        if let Some(known) = self.places.get(&place) {
            return Arc::clone(known);
        }
        let place = Arc::new(place);
        self.places.insert(Arc::clone(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(pid: u32, parent_pid: u32) -> ProcessEvent {
        ProcessEvent::Fork { pid, parent_pid, tid: pid, time_ns: 1 }
    }

    #[test]
    fn children_are_where_their_parent_is_also_when_they_are_gone() {
        let own = std::process::id();
        let mut places = Places::default();
        // No such process: `pid_max` is 4194304 at most.
        let (child, grandchild) = (5_000_000, 5_000_001);
        places.observe(&fork(child, own));
        places.observe(&ProcessEvent::Exit { pid: child, tid: child, time_ns: 2 });
        places.observe(&fork(grandchild, child));
        let mine = places.of(own);
        assert_eq!(places.of(child), mine);
        assert!(Arc::ptr_eq(&places.of(grandchild), &mine), "each is kept once");
        places.observe(&ProcessEvent::Exit { pid: grandchild, tid: grandchild, time_ns: 3 });
        places.window_ended();
        assert_eq!(places.known.keys().collect::<Vec<_>>(), [&own]);
    }

    #[test]
    fn a_process_that_was_moved_is_looked_at_in_the_next_window() {
        let (own, gone) = (std::process::id(), 5_000_000);
        let mut places = Places::default();
        let mine = places.of(own);
        let elsewhere = places.keep(container::place("/elsewhere"));
        places.set(own, Arc::clone(&elsewhere));
        places.set(gone, Arc::clone(&elsewhere));
        assert_eq!(places.of(own), elsewhere);
        places.window_ended();
        assert_eq!((places.of(own), places.of(gone)), (mine, elsewhere));
    }

    #[test]
    fn what_is_not_known_is_the_root() {
        assert_eq!(Places::default().of(5_000_000).cgroup, "/");
    }
}
