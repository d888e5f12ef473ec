//! A command that is started but does not run: its process exists and has its id, and waits before execve(2) until the
//! probes are attached, so that its first instruction can be sampled.
//!
//! The wait is in the child between fork and exec: it writes its id into one pipe and reads another. That happens in
//! `Command::pre_exec`, where only async-signal-safe calls are allowed; std's `spawn` returns after the exec only, so a
//! thread of its own calls it. Nothing is stopped by signals: a shell's job control would see that, and a debugger too.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::model::name;

/// Exit code of a shell for a command that was not found (POSIX sh, "Exit Status for Commands").
pub const EXIT_NOT_FOUND: u8 = 127;
/// Exit code of a shell for a command that was found and cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;

/// The command's exec failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {command}: {}", reason(source))]
pub struct ExecError {
    /// The program, cleaned.
    pub command: String,
    /// What execvp(3) said.
    pub source: io::Error,
}

impl ExecError {
    /// The code a shell would exit with.
    pub fn exit_code(&self) -> u8 {
        match self.source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => EXIT_NOT_FOUND,
            _ => EXIT_NOT_EXECUTABLE,
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT) => "command not found, or the interpreter in its first line".to_owned(),
        Some(libc::EACCES) => {
            "permission denied (not executable, or a directory on the way is closed)".to_owned()
        }
        Some(libc::ENOEXEC) => "not an executable file of this machine".to_owned(),
        _ => error.to_string(),
    }
}

/// A process that waits before its exec.
#[derive(Debug)]
pub struct StoppedCommand {
    pid: u32,
    program: String,
    /// The write end of the pipe that the child reads.
    gate: Option<File>,
    /// A copy of the read end: keeps a write from failing with EPIPE, or SIGPIPE, when the child has been killed.
    _gate_reader: OwnedFd,
    spawner: Option<JoinHandle<io::Result<Child>>>,
}

impl StoppedCommand {
    /// Forks the process. Standard input, output, error and the environment are this process's own.
    ///
    /// # Errors
    /// Those of pipe(2), of making a thread and of fork(2).
    pub fn spawn(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
        let (id_reader, id_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (gate_reader, gate_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let gate_reader_copy = gate_reader.try_clone()?;
        let mut command = Command::new(program);
        command.args(arguments);
        wait_before_exec(&mut command, id_writer, gate_reader, gate_writer.as_raw_fd());
        let spawner = std::thread::Builder::new().name("spawn".to_owned()).spawn(move || command.spawn())?;
        let mut stopped = Self {
            pid: 0,
            program: name::clean(program.as_encoded_bytes()),
            gate: Some(File::from(gate_writer)),
            _gate_reader: gate_reader_copy,
            spawner: Some(spawner),
        };
        let mut id = [0; 4];
        match File::from(id_reader).read_exact(&mut id) {
            Ok(()) => stopped.pid = u32::from_ne_bytes(id),
            // All writers are closed without an id: there was no fork, and the spawner knows why.
            Err(error) => return Err(stopped.join().err().unwrap_or(error)),
        }
        Ok(stopped)
    }

    /// The process's id; it stays the same over the exec.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the process execute the command, and returns when it has. A process that was killed while it waited is
    /// returned as a command that has ended by that signal.
    ///
    /// # Errors
    /// [`ExecError`] if there is nothing to execute; the process is gone then.
    pub fn release(mut self) -> Result<RunningCommand, ExecError> {
        let opened = self.gate.take().map_or(Ok(()), |mut gate| gate.write_all(&[GO]));
        let fail = |command: &Self, source| ExecError { command: command.program.clone(), source };
        match self.join() {
            Ok(child) => Ok(RunningCommand { child }),
            Err(source) => Err(fail(&self, opened.err().unwrap_or(source))),
        }
    }

    fn join(&mut self) -> io::Result<Child> {
        let gone = || io::Error::other("the thread that starts the command has gone");
        self.spawner.take().ok_or_else(gone)?.join().map_err(|_| gone())?
    }
}

impl Drop for StoppedCommand {
    fn drop(&mut self) {
        // Ends the child before its exec; joining collects its exit status. The end of file alone would do it too, but
        // another process forked at the same time may hold a copy of the write end for a while.
        if let Some(mut gate) = self.gate.take() {
            let _ = gate.write_all(&[CANCEL]);
        }
        if self.spawner.is_some()
            && let Ok(mut child) = self.join()
        {
            // Only a child that was killed while it waited: nothing of the command has run.
            let _ = child.wait();
        }
    }
}

/// What the child reads: run, or end without having run. The end of file means that the profiler is gone: end too.
const GO: u8 = 1;
const CANCEL: u8 = 0;

/// Makes the child write its id to `id`, then wait for [`GO`] from `gate`.
fn wait_before_exec(command: &mut Command, id: OwnedFd, gate: OwnedFd, gate_writer: RawFd) {
    let wait = move || {
        default_signals();
        // The child's own copy of the write end would keep its read from ever seeing the end of file.
        // SAFETY: close(2) of a descriptor number that this child has inherited and does not use.
        unsafe { libc::close(gate_writer) };
        write_id(id.as_raw_fd(), std::process::id())?;
        wait_for_byte(gate.as_raw_fd())
    };
    // SAFETY: the closure runs in the child between fork and exec. It calls signal, close, getpid, write and read,
    // which are async-signal-safe, allocates nothing and takes no lock; its errors are made of bare codes.
    unsafe { command.pre_exec(wait) };
}

/// Gives all signals their default disposition, as a command that a shell starts expects. (Handlers would be reset by
/// the exec, but until then the child would run the profiler's; ignored signals stay ignored over an exec.) SIGHUP
/// alone keeps "ignored": that is what nohup(1) asks for, for whatever is started below it.
pub(super) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: sigaction(2) with a null new action only reads into `old`, a plain C structure for which all-zero
        // bytes are valid; signal(2) takes any number and fails for those that cannot be set.
        unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, std::ptr::null(), &raw mut old) == 0;
            if known && !(signal == libc::SIGHUP && old.sa_sigaction == libc::SIG_IGN) {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

fn write_id(fd: RawFd, pid: u32) -> io::Result<()> {
    let bytes = pid.to_ne_bytes();
    loop {
        // SAFETY: write(2) from four bytes that live over the call. Four bytes to a pipe are written whole.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match interrupted(written)? {
            Some(_) => return Ok(()),
            None => continue,
        }
    }
}

fn wait_for_byte(fd: RawFd) -> io::Result<()> {
    let mut byte = 0u8;
    loop {
        // SAFETY: read(2) of one byte into one byte that lives over the call.
        let got = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
        match interrupted(got)? {
            Some(1) if byte == GO => return Ok(()),
            Some(_) => return Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            None => continue,
        }
    }
}

/// A system call's result; `None` if a signal interrupted it.
fn interrupted(result: isize) -> io::Result<Option<isize>> {
    if result >= 0 {
        return Ok(Some(result));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) }
}

/// A command that has been released. Dropping it leaves it running.
#[derive(Debug)]
pub struct RunningCommand {
    child: Child,
}

impl RunningCommand {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A descriptor that is readable when the process has ended, for an event loop (Linux 5.3).
    ///
    /// # Errors
    /// Those of pidfd_open(2).
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?)
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// The exit status if the process has ended.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends SIGTERM, for a profiler that ends before its command does because something failed.
    ///
    /// # Errors
    /// Those of pidfd_open(2) and pidfd_send_signal(2); none if the process has ended.
    pub fn terminate(&self) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd()?.as_fd(), Signal::TERM) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The exit code that a shell shows for a status: the process's own, or 128 + the signal that ended it.
pub fn shell_exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_whose_profiler_is_gone_ends_without_running() {
        let mut stopped = StoppedCommand::spawn(OsStr::new("true"), &[]).unwrap();
        // What the end of the profiler's process does: its descriptors are closed, nothing is written.
        drop(stopped.gate.take());
        let error = stopped.join().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }
}
