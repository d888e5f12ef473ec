//! HotSpot's attach protocol: a JVM is asked to write the names of its code to `/tmp/perf-PID.map`. The only thing here that
//! makes a JVM do something; never done unless the user allows it.
//!
//! | step | what is made sure before |
//! |---|---|
//! | the socket `/tmp/.java_pidPID`, in its root and by its own process id, is connected to | it is a socket, of the JVM's user, reached through no link; who listens is that process |
//! | if nobody listens: `.attach_pidPID` is made in its working directory or `/tmp`, and SIGQUIT sent | the file was not there; it handles SIGQUIT, which else would end it; it was not told to ignore requests |
//! | it is asked for `jcmd Compiler.perfmap` (JDK 17, JDK-8254723) | no link or other file is where it will write |
//! | its answer is read | at most 64 KiB, for at most 30 s |
//!
//! Source: os/posix/attachListener_posix.cpp (os/linux before JDK 21), share/services/{attachListener,diagnosticCommand}.cpp,
//! share/runtime/os.cpp (`signal_thread_entry`). A JVM serves only its own user (JDK 8: not even root), so all of it is done by a
//! thread that has the effective ids of the JVM and no other group.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, unlinkat},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
    process::{
        Gid, Pid, PidfdFlags, Signal, Uid, getegid, geteuid, getgid, getuid, pidfd_open, pidfd_send_signal,
    },
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::open;
use crate::{
    model::name,
    symbolize::{
        open as files, perf_map,
        process_file::{self, Status},
    },
};

/// How long a JVM may take to listen. It looks for requests at once, unless it stands at a safepoint.
const LISTENS: Duration = Duration::from_secs(10);
/// How often it is looked whether it does.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long it may take to answer.
const ANSWERS: Duration = Duration::from_secs(30);
/// Most bytes of an answer: it is empty if all is well.
const MAX_ANSWER: usize = 64 << 10;
/// Most bytes of an answer that are told.
const MAX_TOLD: usize = 200;
/// Most bytes of a command line.
const MAX_COMMAND: u64 = 1 << 20;
/// Version of the protocol, command, three arguments. All versions know this one.
const REQUEST: &[u8] = b"1\0jcmd\0Compiler.perfmap\0\0\0";
/// The flag of a JVM that does not listen, and prints its threads when it gets SIGQUIT.
const DISABLED: &str = "DisableAttachMechanism";

/// Why a JVM did not write its names.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It ended.
    #[error("the process ended")]
    Gone,
    /// Something of it cannot be read, made or reached.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
    /// SIGQUIT would end it.
    #[error(
        "it does not handle SIGQUIT, which would end it: it is starting, or has -Xrs and lost its socket"
    )]
    NoHandler,
    /// It was told not to listen.
    #[error("it was started with -XX:+DisableAttachMechanism")]
    Disabled,
    /// The profiler may not have its ids.
    #[error("it runs as user {0}, which the profiler may not become: {1}")]
    Ids(u32, #[source] io::Error),
    /// Something else is where it, or the profiler, is to make a file.
    #[error("{0} {1}")]
    Planted(String, &'static str),
    /// Another process listens.
    #[error("process {0} listens at its socket")]
    Other(i32),
    /// It does not listen.
    #[error("it did not listen within {} s", LISTENS.as_secs())]
    Silent,
    /// It refused, or does not know what it was asked for.
    #[error("it answered: {0}")]
    Refused(String),
    /// It agreed, but did not do it.
    #[error("it wrote no map that can be believed")]
    NoMap,
}

impl AttachError {
    /// What mends it.
    pub const fn mend(&self) -> &'static str {
        match self {
            Self::Gone => "let the recording end before the JVM",
            Self::Ids(..) => "run the profiler as root, or as that user",
            Self::NoHandler | Self::Disabled | Self::Silent | Self::Refused(_) => {
                "start the JVM without these options; or, from JDK 17 on, with -XX:+DumpPerfMapAtExit"
            }
            Self::Planted(..) | Self::Other(_) => "remove it, if you know whose it is",
            Self::Io(..) | Self::NoMap => "see whether `jcmd PID Compiler.perfmap` works, as the JVM's user",
        }
    }
}

type Outcome<T> = Result<T, AttachError>;

/// Has a JVM write its perf map. `started_ns`: when it started ([`process_file::start_ns`]); what has its id since is another one.
///
/// # Errors
/// It is not asked, because something is not as it should be, or does not do it.
pub fn write_perf_map(pid: u32, started_ns: u64) -> Outcome<()> {
    let target = Target::new(pid, started_ns)?;
    if is_disabled(pid) {
        return Err(AttachError::Disabled);
    }
    target.check_map()?;
    // Its ids are this thread's only, and end with it.
    let talk = thread::Builder::new().name("attach".to_owned()).spawn(move || target.ask());
    let talk = talk.map_err(|error| AttachError::Io("a thread", error))?;
    talk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    match perf_map::PerfMap::of_process(pid).is_there() {
        true => Ok(()),
        false => Err(AttachError::NoMap),
    }
}

/// A JVM, held by descriptors: its id may become another process's meanwhile.
struct Target {
    pid: Pid,
    pidfd: OwnedFd,
    root: OwnedFd,
    cwd: OwnedFd,
    status: Status,
}

impl Target {
    fn new(pid: u32, started_ns: u64) -> Outcome<Self> {
        let io = |what| move |error: io::Error| AttachError::Io(what, error);
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(AttachError::Gone)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(|_| AttachError::Gone)?;
        let root = files::process_root(pid).map_err(io("its root"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let cwd = openat(rustix::fs::CWD, format!("/proc/{pid}/cwd"), flags, Mode::empty());
        let cwd = cwd.map_err(|error| AttachError::Io("its working directory", error.into()))?;
        let status = process_file::read_status(pid).map_err(io("its status"))?;
        // All of it is of one process, that one.
        match process_file::start_ns(pid) {
            Ok(ns) if ns == started_ns => Ok(Self { pid: id, pidfd, root, cwd, status }),
            _ => Err(AttachError::Gone),
        }
    }

    /// The JVM writes without looking: through a link it would write over another file of its user.
    fn check_map(&self) -> Outcome<()> {
        let name = perf_map::file_name(self.status.ns_pid);
        let planted = |why| Err(AttachError::Planted(format!("/tmp/{name}"), why));
        match files::in_tmp(self.root.as_fd(), &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(AttachError::Io("its /tmp", error)),
            Ok(handle) => match kind_and_owner(&handle)? {
                (FileType::RegularFile, owner) if owner == self.status.effective_uid => Ok(()),
                (FileType::RegularFile, _) => planted("is of another user"),
                _ => planted("is a link, or no file"),
            },
        }
    }

    /// The conversation, as its user.
    fn ask(&self) -> Outcome<()> {
        become_user(&self.status)?;
        let stream = match self.connect()? {
            Some(stream) => stream,
            None => self.wake()?,
        };
        answer_is_good(&exchange(stream).map_err(|error| AttachError::Io("its socket", error))?)
    }

    /// Connects, if it listens.
    fn connect(&self) -> Outcome<Option<UnixStream>> {
        let name = format!(".java_pid{}", self.status.ns_pid);
        let planted = |why| Err(AttachError::Planted(format!("/tmp/{name}"), why));
        let handle = match files::in_tmp(self.root.as_fd(), &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            handle => handle.map_err(|error| AttachError::Io("its /tmp", error))?,
        };
        match kind_and_owner(&handle)? {
            (FileType::Socket, owner) if owner == self.status.effective_uid => {}
            (FileType::Socket, _) => return planted("is of another user"),
            _ => return planted("is no socket"),
        }
        let Some(stream) = connected(handle.as_fd()).map_err(|e| AttachError::Io("its socket", e))? else {
            return Ok(None);
        };
        let peer = sockopt::socket_peercred(&stream).map_err(|e| AttachError::Io("its socket", e.into()))?;
        match peer.pid == self.pid {
            true => Ok(Some(stream)),
            false => Err(AttachError::Other(peer.pid.as_raw_nonzero().get())),
        }
    }

    /// Has it listen, and connects.
    fn wake(&self) -> Outcome<UnixStream> {
        let _request = self.request()?;
        // What it handles can have changed since.
        let pid = self.pid.as_raw_nonzero().get().unsigned_abs();
        let status = process_file::read_status(pid).map_err(|_| AttachError::Gone)?;
        if status.caught & 1 << (Signal::QUIT.as_raw() - 1) == 0 {
            return Err(AttachError::NoHandler);
        }
        pidfd_send_signal(&self.pidfd, Signal::QUIT).map_err(|error| match error {
            Errno::SRCH => AttachError::Gone,
            error => AttachError::Io("SIGQUIT", error.into()),
        })?;
        let begun = Instant::now();
        while begun.elapsed() < LISTENS {
            let mut ended = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut ended, Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Err(AttachError::Gone),
                Err(error) => return Err(AttachError::Io("its end", error.into())),
            }
            if let Some(stream) = self.connect()? {
                return Ok(stream);
            }
        }
        Err(AttachError::Silent)
    }

    /// Makes the file that tells it that SIGQUIT is a request. It looks in its working directory, then in `/tmp`.
    fn request(&self) -> Outcome<Request> {
        let name = format!(".attach_pid{}", self.status.ns_pid);
        let tmp = || files::in_tmp(self.root.as_fd(), ".");
        let cwd = || self.cwd.try_clone();
        let places: [(&str, &dyn Fn() -> io::Result<OwnedFd>); 2] =
            [("its working directory", &cwd), ("its /tmp", &tmp)];
        let mut failed = None;
        for (place, directory) in places {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = directory().and_then(|directory| {
                openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
                Ok(directory)
            });
            match made {
                Ok(directory) => return Ok(Request { directory, name }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let why = "is there already: something else attaches, or did";
                    return Err(AttachError::Planted(format!("{name} in {place}"), why));
                }
                Err(error) => failed = Some(AttachError::Io(place, error)),
            }
        }
        Err(failed.unwrap_or(AttachError::Silent))
    }
}

/// The file that tells a JVM of a request. Dropped, it is removed.
struct Request {
    directory: OwnedFd,
    name: String,
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Err(error) = unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            log::warn!("{} in the directory of a JVM could not be removed: {error}", self.name);
        }
    }
}

/// Takes on a process's effective ids, in this thread only. The real ids stay, so that the user may send it no signals.
fn become_user(status: &Status) -> Outcome<()> {
    let (uid, gid) = (Uid::from_raw(status.effective_uid), Gid::from_raw(status.effective_gid));
    if (uid, gid) == (geteuid(), getegid()) {
        return Ok(());
    }
    let become_it = || {
        set_thread_groups(&[])?;
        set_thread_res_gid(getgid(), gid, getgid())?;
        set_thread_res_uid(getuid(), uid, getuid())
    };
    become_it().map_err(|error: Errno| AttachError::Ids(status.effective_uid, error.into()))
}

/// Whether it does not listen, as far as can be told: by its command line and by its flag.
fn is_disabled(pid: u32) -> bool {
    let mut command = Vec::new();
    let read = fs::File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND).read_to_end(&mut command));
    let says = |word: &[u8]| word.strip_prefix(b"-XX:+") == Some(DISABLED.as_bytes());
    if read.is_ok() && command.split(|&byte| byte == 0).any(says) {
        return true;
    }
    open::flag(pid, DISABLED).unwrap_or(false)
}

fn kind_and_owner(handle: &OwnedFd) -> Outcome<(FileType, u32)> {
    let stat = fstat(handle).map_err(|error| AttachError::Io("its /tmp", error.into()))?;
    Ok((FileType::from_raw_mode(stat.st_mode), stat.st_uid))
}

/// Connects to the very socket that was looked at. `None`: nobody listens.
fn connected(handle: BorrowedFd<'_>) -> io::Result<Option<UnixStream>> {
    // Without waiting: behind a full queue that could be for ever.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}", handle.as_raw_fd()))?) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(Some(stream))
}

/// Asks, and reads the answer to its end.
fn exchange(mut stream: UnixStream) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    stream.set_write_timeout(Some(ANSWERS))?;
    stream.write_all(REQUEST)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < MAX_ANSWER {
        let left = ANSWERS.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => answer.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// The answer begins with a number, 0 if all is well.
fn answer_is_good(answer: &[u8]) -> Outcome<()> {
    let mut lines = answer.splitn(2, |&byte| byte == b'\n');
    match (lines.next(), lines.next()) {
        (Some(b"0"), Some(_)) => Ok(()),
        _ => {
            let told: Vec<u8> =
                answer.iter().take(MAX_TOLD).map(|&byte| if byte == b'\n' { b' ' } else { byte }).collect();
            Err(AttachError::Refused(name::clean(told.trim_ascii())))
        }
    }
}

#[cfg(test)]
mod tests;
