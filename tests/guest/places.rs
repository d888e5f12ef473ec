//! File systems of the guest: what a distribution's boot would have mounted.

use std::{fs, process::Command};

use rustix::mount::{MountFlags, mount};

/// Type, place and options. Those that a kernel lacks are left out, and the tests that need them say so.
const MOUNTS: [(&str, &str, &str); 10] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Without these nothing can be tested.
const NEEDED: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

/// Mounts everything and sets the loopback interface up.
pub fn make() -> Result<(), String> {
    for (kind, place, options) in MOUNTS {
        // Inside /sys the kernel makes the directories itself, or has no such file system.
        drop(fs::create_dir_all(place));
        let options = std::ffi::CString::new(options).map_err(|e| e.to_string())?;
        let mounted = mount(kind, place, kind, MountFlags::empty(), options.as_c_str());
        if let Err(e) = mounted
            && NEEDED.contains(&place)
        {
            return Err(format!("{place}: {e}"));
        }
    }
    let status = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err("the loopback interface cannot be set up".into());
    }
    Ok(())
}
