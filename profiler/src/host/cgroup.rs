//! Control groups: which hierarchies are mounted, and the id and level by which an eBPF program knows a cgroup.
//!
//! Only the unified hierarchy (v2) can be filtered on in the kernel: `bpf_get_current_ancestor_cgroup_id` compares its
//! ids. A cgroup's id is the inode number of its directory: kernfs has used 64-bit inode numbers as ids since Linux 5.5
//! (67c0496e87d1, 40430452fd5d), on 64-bit machines.
//! Sources: /proc/self/mountinfo, statfs(2), stat(2), cgroups(7), cgroup_namespaces(7).

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use super::{
    fs::{self, Mount},
    namespaces::Namespaces,
};

/// Which kinds of hierarchy are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// None.
    NotMounted,
    /// Only version 1.
    V1,
    /// Version 1 for controllers, version 2 beside it (`/sys/fs/cgroup/unified`).
    Hybrid,
    /// Only version 2.
    V2,
}

impl Version {
    /// From the mounts of a process.
    pub fn of(mounts: &[Mount]) -> Self {
        match (fs::find(mounts, "cgroup"), fs::find(mounts, "cgroup2")) {
            (None, None) => Self::NotMounted,
            (Some(_), None) => Self::V1,
            (Some(_), Some(_)) => Self::Hybrid,
            (None, Some(_)) => Self::V2,
        }
    }

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotMounted => "not mounted",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid (v1 and v2)",
            Self::V2 => "v2",
        }
    }
}

/// A cgroup of the unified hierarchy, as the kernel side compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Path below the root of the hierarchy, `/` for the root itself.
    pub path: PathBuf,
    /// `cgroup_id()` of the kernel.
    pub id: u64,
    /// Levels below the root, 0 is the root.
    pub level: u32,
}

/// Why a path is not a cgroup that can be filtered on.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host has no unified hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted (found: {}), and only v2 cgroups can be selected in the kernel; \
         `mount -t cgroup2 none DIR` adds one, or choose the processes with -p",
        found.name()
    )]
    NoUnified {
        /// What is mounted instead.
        found: Version,
    },
    /// The path is inside a version 1 hierarchy.
    #[error(
        "{} is a cgroup v1 directory, and only v2 cgroups can be selected in the kernel; give a path below {}",
        path.display(), unified.display()
    )]
    V1Path {
        /// As given.
        path: PathBuf,
        /// Where the unified hierarchy is.
        unified: PathBuf,
    },
    /// No such directory.
    #[error("no cgroup {}: {source}", path.display())]
    NotFound {
        /// As given.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The path exists but is not a cgroup.
    #[error("{} is not a cgroup directory; give a path below {}", path.display(), unified.display())]
    NotACgroup {
        /// As given.
        path: PathBuf,
        /// Where the unified hierarchy is.
        unified: PathBuf,
    },
    /// The depth below the real root is not known from inside a cgroup namespace.
    #[error(
        "the cgroup's place in the host's hierarchy is not known inside a cgroup namespace; \
         run the profiler on the host, or its container with the host's cgroup namespace"
    )]
    Namespace,
}

/// Resolves a path given by a user: absolute under a cgroup2 mount, or relative to the root of the hierarchy (with or
/// without a leading slash, as in /proc/PID/cgroup).
///
/// # Errors
/// [`CgroupError`].
pub fn resolve(path: &Path) -> Result<Cgroup, CgroupError> {
    resolve_in(path, &fs::mounts(), &Namespaces::read())
}

fn resolve_in(path: &Path, mounts: &[Mount], namespaces: &Namespaces) -> Result<Cgroup, CgroupError> {
    let Some(whole) = unified_mount(mounts) else {
        return Err(CgroupError::NoUnified { found: Version::of(mounts) });
    };
    if namespaces.initial_cgroup == Some(false) {
        return Err(CgroupError::Namespace);
    }
    let unified = whole.point.clone();
    let below = unified.join(path.strip_prefix("/").unwrap_or(path));
    let real = |path: &Path| std::fs::canonicalize(path);
    let found = match (real(path), real(&below)) {
        // A relative path means the hierarchy, whatever the working directory holds.
        (_, Ok(dir)) if is_cgroup2(&dir) => dir,
        (Ok(dir), _) if is_cgroup2(&dir) => dir,
        (Ok(dir), _) if is_below_v1(&dir, mounts) => {
            return Err(CgroupError::V1Path { path: path.into(), unified });
        }
        (Ok(_), _) | (_, Ok(_)) => return Err(CgroupError::NotACgroup { path: path.into(), unified }),
        (Err(_), Err(source)) => return Err(CgroupError::NotFound { path: path.into(), source }),
    };
    let path_in_hierarchy = hierarchy_path(&found, mounts)
        .ok_or_else(|| CgroupError::NotACgroup { path: path.into(), unified: unified.clone() })?;
    let id = std::fs::metadata(&found)
        .map_err(|source| CgroupError::NotFound { path: path.into(), source })?
        .ino();
    Ok(Cgroup { level: level_of(&path_in_hierarchy), path: path_in_hierarchy, id })
}

/// The mount that shows most of the unified hierarchy.
fn unified_mount(mounts: &[Mount]) -> Option<&Mount> {
    mounts.iter().filter(|m| m.fs_type == "cgroup2").min_by_key(|m| level_of(&m.root))
}

fn is_below_v1(dir: &Path, mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| mount.fs_type == "cgroup" && dir.starts_with(&mount.point))
}

/// CGROUP2_SUPER_MAGIC, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

fn is_cgroup2(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC) && dir.is_dir()
}

/// Where an absolute path without links lies in the unified hierarchy, by the innermost mount above it.
fn hierarchy_path(dir: &Path, mounts: &[Mount]) -> Option<PathBuf> {
    let mount = mounts
        .iter()
        .filter(|m| m.fs_type == "cgroup2" && dir.starts_with(&m.point))
        .max_by_key(|m| level_of(&m.point))?;
    Some(mount.root.join(dir.strip_prefix(&mount.point).ok()?))
}

fn level_of(path: &Path) -> u32 {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_)));
    u32::try_from(names.count()).unwrap_or(u32::MAX)
}

/// The path in the unified hierarchy of a /proc/PID/cgroup file: the line of hierarchy 0.
pub fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The path that tells most of a /proc/PID/cgroup file, whose lines are `ID:CONTROLLERS:PATH`, cgroups(7).
pub fn label(text: &str) -> Option<&str> {
    let of = |controllers: &str| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (these, path) = rest.split_once(':')?;
            (these == controllers && path != "/").then_some(path)
        })
    };
    let any = || text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).find(|path| *path != "/");
    of("").or_else(|| of("name=systemd")).or_else(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_paths_that_tell_most() {
        let v2 = "0::/system.slice/docker-1f.scope\n";
        let hybrid = "5:memory:/docker/1f\n1:name=systemd:/system.slice/x.service\n0::/\n";
        assert_eq!(label(v2), Some("/system.slice/docker-1f.scope"));
        assert_eq!(label(hybrid), Some("/system.slice/x.service"));
        assert_eq!(label("5:memory:/docker/1:f\n1:name=systemd:/\n0::/\n"), Some("/docker/1:f"));
        assert_eq!((label("0::/\n"), label(""), label("x\n1:cpu\n")), (None, None, None));
    }

    fn mount(fs_type: &str, root: &str, point: &str) -> Mount {
        Mount { root: root.into(), point: point.into(), fs_type: fs_type.into(), options: String::new() }
    }

    #[test]
    fn versions_by_what_is_mounted() {
        let v1 = mount("cgroup", "/", "/sys/fs/cgroup/cpu");
        let v2 = mount("cgroup2", "/", "/sys/fs/cgroup");
        assert_eq!(Version::of(&[]), Version::NotMounted);
        assert_eq!(Version::of(std::slice::from_ref(&v1)), Version::V1);
        assert_eq!(Version::of(std::slice::from_ref(&v2)), Version::V2);
        assert_eq!(Version::of(&[v1, v2]), Version::Hybrid);
    }

    #[test]
    fn levels_count_names() {
        for (path, level) in [("/", 0), ("/a", 1), ("/a/b/", 2), ("/system.slice/ssh.service", 2)] {
            assert_eq!(level_of(Path::new(path)), level, "{path}");
        }
    }

    #[test]
    fn the_innermost_mount_decides_the_place() {
        let mounts =
            [mount("cgroup2", "/", "/sys/fs/cgroup"), mount("cgroup2", "/kubepods/pod1", "/sys/fs/cgroup/x")];
        let place = |dir: &str| hierarchy_path(Path::new(dir), &mounts);
        assert_eq!(place("/sys/fs/cgroup/a/b"), Some("/a/b".into()));
        assert_eq!(place("/sys/fs/cgroup/x/c"), Some("/kubepods/pod1/c".into()));
        assert_eq!(place("/sys/fs/cgroup"), Some("/".into()));
        assert_eq!(place("/tmp"), None);
    }

    #[test]
    fn pure_v1_is_refused_with_the_reason() {
        let mounts = [mount("cgroup", "/", "/sys/fs/cgroup/cpu")];
        let error = resolve_in(Path::new("/a"), &mounts, &Namespaces::default()).unwrap_err().to_string();
        assert!(error.starts_with("no cgroup v2 hierarchy is mounted (found: v1)"), "{error}");
    }

    #[test]
    fn a_cgroup_namespace_is_refused_with_the_reason() {
        let mounts = [mount("cgroup2", "/", "/sys/fs/cgroup")];
        let inside = Namespaces { initial_cgroup: Some(false), ..Default::default() };
        assert!(matches!(resolve_in(Path::new("/"), &mounts, &inside), Err(CgroupError::Namespace)));
    }

    #[test]
    fn directories_that_are_no_cgroups_are_refused() {
        let mounts = [mount("cgroup2", "/", "/sys/fs/cgroup/none"), mount("cgroup", "/", "/proc/self")];
        let fail = |path: &str| resolve_in(Path::new(path), &mounts, &Namespaces::default()).unwrap_err();
        assert!(matches!(fail("/tmp"), CgroupError::NotACgroup { .. }));
        assert!(matches!(fail("/no/such"), CgroupError::NotFound { .. }));
        let own = format!("/proc/{}/task", std::process::id());
        let v1 = [mounts[0].clone(), mount("cgroup", "/", &format!("/proc/{}", std::process::id()))];
        let error = resolve_in(Path::new(&own), &v1, &Namespaces::default()).unwrap_err();
        assert!(matches!(error, CgroupError::V1Path { .. }), "{error}");
    }

    /// The kernel's own id of a kernfs directory, by another way than its inode number: the file handle.
    fn handle_id(dir: &Path) -> u64 {
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: [u8; 8],
        }
        let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()).unwrap();
        let mut handle = Handle { bytes: 8, kind: 0, id: [0; 8] };
        let mut mount = 0;
        // SAFETY: `Handle` is struct file_handle with room for the 8 bytes it states; all pointers outlive the call.
        let result = unsafe {
            libc::name_to_handle_at(
                libc::AT_FDCWD,
                path.as_ptr(),
                (&raw mut handle).cast(),
                &raw mut mount,
                0,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        u64::from_ne_bytes(handle.id)
    }

    #[test]
    fn this_hosts_cgroups_have_the_kernels_ids() {
        let mounts = fs::mounts();
        let inside = Namespaces::read().initial_cgroup == Some(false);
        let Some(unified) = unified_mount(&mounts) else {
            assert!(matches!(resolve(Path::new("/")), Err(CgroupError::NoUnified { .. })));
            return;
        };
        if inside {
            assert!(matches!(resolve(Path::new("/")), Err(CgroupError::Namespace)));
            return;
        }
        let root = resolve(Path::new("/")).unwrap();
        assert_eq!((root.level, root.path.as_path()), (level_of(&unified.root), unified.root.as_path()));
        assert_eq!(root.id, handle_id(&unified.point));
        // Some cgroup below it, in both ways to name it, if there is one.
        let below = std::fs::read_dir(&unified.point).unwrap().flatten().find(|e| e.path().is_dir());
        if let Some(entry) = below {
            let absolute = resolve(&entry.path()).unwrap();
            assert_eq!(absolute, resolve(Path::new(&entry.file_name())).unwrap());
            assert_eq!((absolute.level, absolute.id), (root.level + 1, handle_id(&entry.path())));
        }
    }

    #[test]
    fn the_unified_line_of_proc_pid_cgroup() {
        assert_eq!(unified_path("9:name=systemd:/x\n0::/user.slice/a:b\n"), Some("/user.slice/a:b"));
        assert_eq!(unified_path("9:name=systemd:/\n10::/no\n"), None);
    }
}
