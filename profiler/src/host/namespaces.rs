//! Namespaces and containers: whether this process sees the host's process ids and cgroups.
//!
//! Source: inode numbers of /proc/self/ns/*. The initial namespaces have fixed ones (include/linux/proc_ns.h); eBPF
//! programs report ids of the initial pid namespace, so ids given by a user elsewhere would mean other processes.

use std::os::unix::fs::MetadataExt;

use super::file;

/// PROC_PID_INIT_INO.
const INITIAL_PID: u64 = 0xEFFF_FFFC;
/// PROC_CGROUP_INIT_INO.
const INITIAL_CGROUP: u64 = 0xEFFF_FFFB;
/// PROC_USER_INIT_INO.
const INITIAL_USER: u64 = 0xEFFF_FFFD;

/// Where this process stands. `None`: /proc does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// In the initial pid namespace.
    pub initial_pid: Option<bool>,
    /// In the initial cgroup namespace.
    pub initial_cgroup: Option<bool>,
    /// In the initial user namespace (capabilities of another one do not reach bpf(2)).
    pub initial_user: Option<bool>,
    /// What made this container, if it looks like one.
    pub container: Option<&'static str>,
}

impl Namespaces {
    /// This process's.
    pub fn read() -> Self {
        let inode = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).ok().map(|m| m.ino());
        Self {
            initial_pid: inode("pid").map(|ino| ino == INITIAL_PID),
            initial_cgroup: inode("cgroup").map(|ino| ino == INITIAL_CGROUP),
            initial_user: inode("user").map(|ino| ino == INITIAL_USER),
            container: container(),
        }
    }
}

fn container() -> Option<&'static str> {
    // Markers that the engines leave for exactly this question.
    if std::path::Path::new("/run/.containerenv").exists() {
        return Some("podman");
    }
    if std::path::Path::new("/.dockerenv").exists() {
        return Some("docker");
    }
    container_of_cgroup(&file::read_text("/proc/self/cgroup", file::SMALL).ok()?)
}

/// The engine whose naming habit the path of a /proc/PID/cgroup file follows.
pub fn container_of_cgroup(text: &str) -> Option<&'static str> {
    [
        ("kubepods", "kubernetes"),
        ("docker", "docker"),
        ("libpod", "podman"),
        ("lxc", "lxc"),
        ("crio", "cri-o"),
    ]
    .into_iter()
    .find(|(mark, _)| text.lines().any(|line| line.splitn(3, ':').nth(2).is_some_and(|p| p.contains(mark))))
    .map(|(_, engine)| engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_by_their_cgroup_paths() {
        for (line, engine) in [
            ("0::/kubepods.slice/kubepods-burstable.slice/cri-containerd-0af.scope", Some("kubernetes")),
            ("12:pids:/docker/4f2a\n0::/docker/4f2a", Some("docker")),
            ("0::/machine.slice/libpod-77.scope/container", Some("podman")),
            ("0::/user.slice/user-1000.slice/session-2.scope", None),
            ("3:name=docker:/", None),
            ("", None),
        ] {
            assert_eq!(container_of_cgroup(line), engine, "{line}");
        }
    }

    #[test]
    fn this_process_has_namespaces() {
        let namespaces = Namespaces::read();
        assert!(namespaces.initial_pid.is_some() && namespaces.initial_user.is_some());
    }
}
