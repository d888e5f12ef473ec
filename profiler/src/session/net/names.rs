//! What sockets are called by: control groups of processes, services of ports, names of addresses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use crate::host::{process, services};

/// Processes whose control group is remembered.
const MAX_PROCESSES: usize = 65_536;

/// Addresses whose names are asked for.
const MAX_HOSTS: usize = 1_024;

/// Time that the resolver is given.
const RESOLVE: Duration = Duration::from_secs(5);

/// The names.
#[derive(Debug, Default)]
pub struct Names {
    containers: HashMap<(u32, u64), Option<Rc<str>>>,
    services: HashMap<(u16, String), String>,
    hosts: HashMap<IpAddr, String>,
}

impl Names {
    /// With the services of this host.
    pub fn new() -> Self {
        Self { services: services::services(), ..Self::default() }
    }

    /// The control group of a process (id, when it was made), which is asked for as long as the process lives.
    pub fn look_up(&mut self, process: (u32, u64)) -> Option<Rc<str>> {
        if let Some(known) = self.containers.get(&process) {
            return known.clone();
        }
        if process.0 == 0 || self.containers.len() >= MAX_PROCESSES {
            return None;
        }
        let path: Option<Rc<str>> = process::cgroup_label(process.0).map(Into::into);
        self.containers.insert(process, path.clone());
        path
    }

    /// Forgets where processes belong: most of them may be gone.
    pub fn forget(&mut self) {
        self.containers.clear();
    }

    /// What [`Self::look_up`] found.
    pub fn container(&self, process: (u32, u64)) -> Option<&Rc<str>> {
        self.containers.get(&process)?.as_ref()
    }

    /// What a port is for. `protocol`: `tcp` or `udp`.
    pub fn service(&self, port: u16, protocol: &str) -> Option<String> {
        self.services.get(&(port, protocol.to_owned())).cloned()
    }

    /// Whether a port has a name.
    pub fn is_service(&self, port: u16) -> bool {
        self.service(port, "tcp").is_some() || self.service(port, "udp").is_some()
    }

    /// Asks for the names of addresses that are not known. How many have none, or could not be asked for in time.
    pub fn resolve(&mut self, addresses: impl Iterator<Item = IpAddr>) -> usize {
        let new: BTreeSet<IpAddr> = addresses.filter(|address| !self.hosts.contains_key(address)).collect();
        let asked: BTreeSet<IpAddr> = new.iter().copied().take(MAX_HOSTS).collect();
        let found = services::host_names(asked, RESOLVE);
        let unnamed = new.len() - found.len();
        self.hosts.extend(found);
        unnamed
    }

    /// The name of an address, if it was asked for and has one.
    pub fn host(&self, address: IpAddr) -> Option<String> {
        self.hosts.get(&address).cloned()
    }
}
