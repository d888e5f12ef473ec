//! Facts about one process from /proc/PID/{comm,status,stat}.

use std::{fs, io};

use profiler_common::{COMM_LEN, Comm};

/// What is needed of /proc/PID/status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Process id in the process's own pid namespace.
    pub ns_pid: u32,
    /// Effective user id, in our user namespace.
    pub effective_uid: u32,
    /// Effective group id, in our user namespace.
    pub effective_gid: u32,
    /// The signals that it has handlers for: signal N is bit N - 1.
    pub caught: u64,
    /// Parent process id.
    pub parent: u32,
}

/// The process's command name.
pub fn read_comm(pid: u32) -> io::Result<Comm> {
    Ok(comm(fs::read(format!("/proc/{pid}/comm"))?.trim_ascii_end()))
}

/// A command name as the kernel stores it, cut to its size.
pub fn comm(raw: &[u8]) -> Comm {
    let mut comm = [0; COMM_LEN];
    for (to, from) in comm[..COMM_LEN - 1].iter_mut().zip(raw) {
        *to = *from;
    }
    comm
}

/// Ids of a process.
pub fn read_status(pid: u32) -> io::Result<Status> {
    parse_status(&fs::read(format!("/proc/{pid}/status"))?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_status(status: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(status);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    Some(Status {
        ns_pid: field("NSpid:")?.split_whitespace().last()?.parse().ok()?,
        effective_uid: field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?,
        effective_gid: field("Gid:")?.split_whitespace().nth(1)?.parse().ok()?,
        caught: u64::from_str_radix(field("SigCgt:")?.trim(), 16).ok()?,
        parent: field("PPid:")?.trim().parse().ok()?,
    })
}

/// Start time, ns since boot, to the clock tick (10 ms) below.
pub fn start_ns(pid: u32) -> io::Result<u64> {
    parse_start(&fs::read(format!("/proc/{pid}/stat"))?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_start(stat: &[u8]) -> Option<u64> {
    // The command name may hold anything, parentheses too; the last one ends it. Field 22 is `starttime`, in ticks of
    // USER_HZ, which is 100 on all architectures that we run on.
    const TICK_NS: u64 = 10_000_000;
    let after = &stat[stat.iter().rposition(|&b| b == b')')? + 1..];
    let ticks: u64 = std::str::from_utf8(after).ok()?.split_whitespace().nth(22 - 3)?.parse().ok()?;
    ticks.checked_mul(TICK_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let status = b"Name:\tx\nPPid:\t7\nUid:\t1000\t1001\t1002\t1003\nGid:\t100\t101\t102\t103\n\
            NSpid:\t4242\t17\t1\nSigCgt:\t0000000181000004\n";
        let expected =
            Status { ns_pid: 1, effective_uid: 1001, effective_gid: 101, caught: 0x1_8100_0004, parent: 7 };
        assert_eq!(parse_status(status), Some(expected));
        assert_eq!(parse_status(b"Name: x\n"), None);
        let own = read_status(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }

    #[test]
    fn the_start_follows_any_command_name() {
        let stat = b"12 (a) R 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20";
        assert_eq!(parse_start(stat), Some(2_500_000_000));
        assert_eq!(parse_start(b"12 (a) S 1"), None);
        assert!(start_ns(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn long_command_names_are_cut() {
        assert_eq!(&comm(b"0123456789abcdefgh"), b"0123456789abcde\0");
    }
}
