//! What systemd is told (sd_notify(3)): ready, reloading, stopping, alive.
//!
//! A datagram to the socket that `NOTIFY_SOCKET` names. Own code, because sd-notify 0.5 sends from the environment of the
//! process only, and blocks where the socket's queue is full.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr, net::UnixDatagram},
    },
    time::Duration,
};

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Everything is attached; also after a reload.
    Ready,
    /// The configuration is read again, at that time of `CLOCK_MONOTONIC`, ns.
    Reloading {
        /// When.
        monotonic_ns: u64,
    },
    /// It ends.
    Stopping,
    /// It is alive.
    Watchdog,
}

/// The connection to systemd; without one, nothing is told.
#[derive(Debug)]
pub struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    /// To the socket of the environment.
    ///
    /// # Errors
    /// If what `NOTIFY_SOCKET` says is no address, or there are no more files.
    pub fn of_process() -> io::Result<Self> {
        Self::to(std::env::var_os("NOTIFY_SOCKET"))
    }

    /// To the socket of that name: a path, or after `@` an abstract name.
    ///
    /// # Errors
    /// If it is no address, or there are no more files.
    pub fn to(name: Option<OsString>) -> io::Result<Self> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(Self(None)) };
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(&name)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "NOTIFY_SOCKET is no path")),
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read must not stop the recording.
        socket.set_nonblocking(true)?;
        Ok(Self(Some((socket, address))))
    }

    /// Tells all that at once.
    ///
    /// # Errors
    /// Those of sendmsg(2); [`io::ErrorKind::WouldBlock`] if systemd does not read.
    pub fn tell(&self, what: &[Tell]) -> io::Result<()> {
        let Some((socket, address)) = &self.0 else { return Ok(()) };
        let lines: Vec<String> = what.iter().map(|tell| tell.line()).collect();
        socket.send_to_addr(lines.join("\n").as_bytes(), address).map(drop)
    }
}

impl Tell {
    fn line(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading { monotonic_ns } => {
                format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_ns / 1000)
            }
            Self::Stopping => "STOPPING=1".to_owned(),
            Self::Watchdog => "WATCHDOG=1".to_owned(),
        }
    }
}

/// How often at least systemd wants to hear from this process: half of what `WATCHDOG_USEC` says. `None`: it does not ask, or
/// asks another process.
pub fn watchdog_interval() -> Option<Duration> {
    let text = |name: &str| std::env::var_os(name);
    interval(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval(usec: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(own.into())) {
        return None;
    }
    let usec = number(usec?)?;
    (usec >= 2).then(|| Duration::from_micros(usec / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 2000];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_told_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(Some(path.into())).unwrap();
        notify.tell(&[Tell::Ready, Tell::Watchdog]).unwrap();
        assert_eq!(receive(&socket), "READY=1\nWATCHDOG=1");
        notify.tell(&[Tell::Reloading { monotonic_ns: 1_234_567 }]).unwrap();
        assert_eq!(receive(&socket), "RELOADING=1\nMONOTONIC_USEC=1234");
    }

    #[test]
    fn abstract_names_and_full_queues() {
        let name = format!("profiler-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify::to(Some(format!("@{name}").into())).unwrap();
        notify.tell(&[Tell::Watchdog]).unwrap();
        assert_eq!(receive(&socket), "WATCHDOG=1");
        let full = (0..100_000).find_map(|_| notify.tell(&[Tell::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock, "nobody reads, and nobody waits");
    }

    #[test]
    fn without_systemd_nothing_is_told() {
        Notify::to(None).unwrap().tell(&[Tell::Stopping]).unwrap();
        Notify::to(Some(OsString::new())).unwrap().tell(&[Tell::Stopping]).unwrap();
        assert!(Notify::to(Some("relative".into())).is_err());
    }

    #[test]
    fn the_watchdog_is_ours_and_twice_as_often() {
        let interval = |usec: &str, pid: Option<&str>| interval(Some(usec.as_ref()), pid.map(OsStr::new), 7);
        assert_eq!(interval("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some("7")), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some("8")), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("x", None), None);
    }
}
