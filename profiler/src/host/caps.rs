//! Capabilities of this process, from /proc/self/status (capabilities(7), include/uapi/linux/capability.h).

use std::fmt;

use super::file;

/// A capability, by its bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cap(pub u8);

/// Names by bit number, Linux 5.9 and later.
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

impl Cap {
    /// Read any file, whatever its mode.
    pub const DAC_READ_SEARCH: Self = Self(2);
    /// Lock more memory than RLIMIT_MEMLOCK: perf buffers beyond `kernel.perf_event_mlock_kb`.
    pub const IPC_LOCK: Self = Self(14);
    /// Look into other users' processes.
    pub const SYS_PTRACE: Self = Self(19);
    /// Almost everything; before 5.8 the only one that allowed tracing programs.
    pub const SYS_ADMIN: Self = Self(21);
    /// Raise resource limits.
    pub const SYS_RESOURCE: Self = Self(24);
    /// See kernel addresses in /proc/kallsyms.
    pub const SYSLOG: Self = Self(34);
    /// perf_event_open(2) beyond `kernel.perf_event_paranoid`; tracing helpers of eBPF.
    pub const PERFMON: Self = Self(38);
    /// bpf(2): maps and programs.
    pub const BPF: Self = Self(39);
    /// Open the files behind /proc/PID/map_files.
    pub const CHECKPOINT_RESTORE: Self = Self(40);

    /// The name as setcap(8) and setpriv(1) spell it, `cap_` included; `cap_N` if this program does not know it.
    pub fn name(self) -> String {
        NAMES.get(usize::from(self.0)).map_or_else(|| format!("cap_{}", self.0), |&name| name.to_owned())
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_ascii_uppercase())
    }
}

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSet(pub u64);

impl CapSet {
    /// Whether the set holds it.
    pub const fn has(self, cap: Cap) -> bool {
        cap.0 < 64 && self.0 >> cap.0 & 1 == 1
    }

    /// The set's members, by number.
    pub fn iter(self) -> impl Iterator<Item = Cap> {
        (0..64).map(Cap).filter(move |&cap| self.has(cap))
    }
}

/// The capability sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What the kernel checks.
    pub effective: CapSet,
    /// What the process could raise.
    pub permitted: CapSet,
    /// What no exec of it can exceed.
    pub bounding: CapSet,
}

impl Capabilities {
    /// Reads the `Cap*` lines of a status file. `None` if one is missing or malformed.
    pub fn parse(status: &str) -> Option<Self> {
        let set = |key| u64::from_str_radix(file::field(status, key)?, 16).ok().map(CapSet);
        Some(Self { effective: set("CapEff")?, permitted: set("CapPrm")?, bounding: set("CapBnd")? })
    }

    /// This process's; none at all if /proc is not mounted.
    pub fn read() -> Self {
        file::read_text("/proc/self/status", file::SMALL)
            .ok()
            .and_then(|status| Self::parse(&status))
            .unwrap_or_default()
    }

    /// Whether the effective set holds `cap`, or CAP_SYS_ADMIN in the places where the kernel takes it instead
    /// (`bpf_capable`, `perfmon_capable`, `checkpoint_restore_ns_capable`: include/linux/capability.h).
    pub const fn allows(&self, cap: Cap) -> bool {
        let stands_in = matches!(cap, Cap::BPF | Cap::PERFMON | Cap::CHECKPOINT_RESTORE);
        self.effective.has(cap) || (stands_in && self.effective.has(Cap::SYS_ADMIN))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUS: &str = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t000001c000000000\nCapEff:\t000000c000000000\n\
                          CapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n";

    #[test]
    fn sets_of_a_status_file() {
        let caps = Capabilities::parse(STATUS).unwrap();
        assert_eq!(caps.effective.iter().collect::<Vec<_>>(), [Cap::PERFMON, Cap::BPF]);
        assert!(caps.permitted.has(Cap::CHECKPOINT_RESTORE) && !caps.effective.has(Cap::CHECKPOINT_RESTORE));
        assert_eq!(caps.bounding.iter().count(), 41);
        assert_eq!(Capabilities::parse("Name:\tx\n"), None);
        assert_eq!(Capabilities::parse(&STATUS.replace("CapEff:\t0", "CapEff:\tz")), None);
    }

    #[test]
    fn names_match_their_numbers() {
        let names: Vec<_> =
            [Cap::DAC_READ_SEARCH, Cap::SYS_PTRACE, Cap::SYS_ADMIN, Cap::SYSLOG, Cap::PERFMON]
                .map(Cap::name)
                .into();
        assert_eq!(
            names,
            ["cap_dac_read_search", "cap_sys_ptrace", "cap_sys_admin", "cap_syslog", "cap_perfmon"]
        );
        assert_eq!(Cap::BPF.to_string(), "CAP_BPF");
        assert_eq!(Cap(63).name(), "cap_63");
    }

    #[test]
    fn sys_admin_stands_in_for_what_was_split_off_it() {
        let caps = Capabilities { effective: CapSet(1 << Cap::SYS_ADMIN.0), ..Default::default() };
        assert!(caps.allows(Cap::BPF) && caps.allows(Cap::PERFMON) && caps.allows(Cap::CHECKPOINT_RESTORE));
        assert!(!caps.allows(Cap::SYSLOG) && !caps.allows(Cap::SYS_PTRACE));
    }

    proptest! {
        #[test]
        fn a_set_is_its_members(bits: u64) {
            prop_assert_eq!(CapSet(bits).iter().map(|cap| 1u64 << cap.0).sum::<u64>(), bits);
        }
    }
}
