//! Where a process belongs, by the path of its control group: systemd's unit, the container and its runtime, the pod.
//!
//! Container managers agree on no format. Known are those that they make with systemd (a scope for each container) and
//! without (a directory): Docker, containerd (nerdctl, Kubernetes' CRI), CRI-O, Podman (also rootless), LXC, systemd-nspawn,
//! Amazon's ECS. A path of another form is no container, but its unit is known all the same.
//! Sources: systemd.slice(5), systemd.scope(5); kubelet's `cgroup_manager_linux.go`; `libpod/container_internal_linux.go`;
//! `internal/config/cgmgr` of CRI-O.

use crate::model::{name::clean, window::Place};

/// How scopes of containers begin, and their runtime. A monitor of a container is outside of it.
const SCOPES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-conmon-", ""),
    ("crio-", "cri-o"),
    ("libpod-conmon-", ""),
    ("libpod-", "podman"),
];

/// Directories whose entries are containers, and their runtime.
const PARENTS: [(&str, &str); 4] =
    [("docker", "docker"), ("libpod_parent", "podman"), ("lxc", "lxc"), ("actions_job", "docker")];

/// Fewest hexadecimal digits of a container's id.
const ID_DIGITS: usize = 12;

/// What the path of a control group tells (/proc/PID/cgroup, [`super::cgroup::label`]).
pub fn place(path: &str) -> Place {
    let text = |text: &str| clean(text.as_bytes());
    let mut place = Place { cgroup: text(path), ..Place::default() };
    let mut parent = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if let Some(pod) = pod(part) {
            place.pod = Some(text(&pod));
        }
        if let Some((runtime, id)) = container(parent, part, place.pod.is_some()) {
            place.runtime = Some(runtime.to_owned());
            place.container = Some(text(id));
        }
        if [".service", ".scope"].iter().any(|suffix| part.ends_with(suffix)) {
            place.unit = Some(text(part));
        }
        parent = part;
    }
    place
}

/// The container that a directory is of, if it is that of one. `parent`: the name of the one above; `in_pod`: it is that of a
/// pod or below.
fn container<'a>(parent: &str, part: &'a str, in_pod: bool) -> Option<(&'static str, &'a str)> {
    if let Some(scope) = part.strip_suffix(".scope") {
        if let Some((prefix, runtime)) = SCOPES.iter().find(|(prefix, _)| scope.starts_with(prefix)) {
            let id = &scope[prefix.len()..];
            return (is_id(id) && !runtime.is_empty()).then_some((runtime, id));
        }
        return scope.strip_prefix("machine-").map(|name| ("nspawn", name));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(("lxc", name));
    }
    if let Some(name) = part.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service")) {
        return Some(("nspawn", name));
    }
    // `SLICE:PREFIX:ID`: what systemd would have made a scope of.
    if let [_, prefix, id] = part.split(':').collect::<Vec<_>>()[..]
        && is_id(id)
    {
        let runtime = SCOPES.iter().find(|(start, _)| start.trim_end_matches('-') == prefix);
        return runtime.filter(|(_, runtime)| !runtime.is_empty()).map(|(_, runtime)| (*runtime, id));
    }
    if let Some((_, runtime)) = PARENTS.iter().find(|(name, _)| *name == parent) {
        return (*runtime == "lxc" || is_id(part)).then_some((*runtime, part));
    }
    if in_pod && is_id(part) {
        // Kubernetes without systemd: the runtime is not told.
        return Some(("kubernetes", part));
    }
    // /ecs/TASK/ID, or /ecs/CLUSTER/TASK/ID.
    (is_id(part) && part.len() == 64).then_some(("unknown", part))
}

/// The uid of the pod that a directory is of.
fn pod(part: &str) -> Option<String> {
    let part = part.split(':').next().unwrap_or(part);
    let name = part.strip_suffix(".slice").unwrap_or(part);
    // `kubepods-burstable-pod8a2f_….slice`, or `pod8a2f-…`.
    let uid = match name.rsplit_once("-pod") {
        Some((start, uid)) if start.starts_with("kubepods") => uid,
        _ => name.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    // Static pods have a hash for a uid.
    let is_uid = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

fn is_id(text: &str) -> bool {
    // ECS has a task's number behind it.
    let id = text.split_once('-').map_or(text, |(id, number)| {
        if number.bytes().all(|byte| byte.is_ascii_digit()) { id } else { text }
    });
    id.len() >= ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f3a1b0c9d8e7f605142a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8";
    const UID: &str = "8a2f0c11-5b1e-4d7a-9c3f-0123456789ab";

    fn found(path: &str) -> (Option<String>, Option<String>, Option<String>, Option<String>) {
        let Place { unit, runtime, container, pod, .. } = place(path);
        (unit, runtime, container, pod)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn containers_of_all_known_managers() {
        let uid = UID.replace('-', "_");
        let scope = |name: &str| format!("{name}-{ID}.scope");
        let cases = [
            (format!("/docker/{ID}"), None, "docker", None),
            (format!("/system.slice/docker-{ID}.scope"), Some(scope("docker")), "docker", None),
            (format!("/system.slice/nerdctl-{ID}.scope"), Some(scope("nerdctl")), "containerd", None),
            (format!("/kubepods/burstable/pod{UID}/{ID}"), None, "kubernetes", Some(UID)),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{ID}.scope"
                ),
                Some(scope("cri-containerd")),
                "containerd",
                Some(UID),
            ),
            (
                format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-{ID}.scope/container"),
                Some(scope("crio")),
                "cri-o",
                Some(UID),
            ),
            (
                format!(
                    "/system.slice/containerd.service/kubepods-besteffort-pod{uid}.slice:cri-containerd:{ID}"
                ),
                some("containerd.service"),
                "containerd",
                Some(UID),
            ),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some(scope("libpod")), "podman", None),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
                ),
                Some(scope("libpod")),
                "podman",
                None,
            ),
            (format!("/libpod_parent/{ID}"), None, "podman", None),
            (format!("/ecs/0123456789abcdef0123456789abcdef/{ID}"), None, "unknown", None),
        ];
        for (path, unit, runtime, pod) in cases {
            assert_eq!(found(&path), (unit, some(runtime), some(ID), pod.map(str::to_owned)), "{path}");
        }
    }

    #[test]
    fn containers_with_names() {
        assert_eq!(found("/lxc/web"), (None, some("lxc"), some("web"), None));
        assert_eq!(found("/lxc.payload.web/init.scope").2, some("web"));
        assert_eq!(found("/machine.slice/machine-web.scope").2, some("web"));
        let nspawn = found("/machine.slice/systemd-nspawn@web.service/payload");
        assert_eq!((nspawn.1, nspawn.2), (some("nspawn"), some("web")));
    }

    #[test]
    fn what_is_no_container_has_its_unit() {
        for (path, unit) in [
            ("/", None),
            ("", None),
            ("/system.slice/ssh.service", some("ssh.service")),
            ("/user.slice/user-0.slice/session-4.scope", some("session-4.scope")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service", some("app-x.service")),
            ("/init.scope", some("init.scope")),
            ("/podcast/podium", None),
            ("/docker/buildx", None),
        ] {
            assert_eq!(found(path), (unit, None, None, None), "{path}");
        }
        let conmon = found(&format!("/machine.slice/libpod-conmon-{ID}.scope"));
        assert_eq!((conmon.1, conmon.2), (None, None), "the monitor is not in the container");
    }

    #[test]
    fn hostile_names_are_cleaned() {
        let place = place("/a\x1b[31m/b\n.service");
        assert!(!place.cgroup.contains(['\x1b', '\n']), "{place:?}");
        assert!(place.unit.is_some_and(|unit| !unit.contains('\n')));
    }
}
