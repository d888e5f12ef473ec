//! Commands started stopped, released, and seen to their end.

use std::{
    io::Read,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use super::{command::shell_exit_code, *};

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn start(command: &[&str]) -> Target {
    Target::resolve(&Choice::Command { words: words(command), children: true }).unwrap()
}

fn processes(pids: &[u32], children: bool) -> Result<Target, TargetError> {
    Target::resolve(&Choice::Processes { pids: pids.to_vec(), children })
}

/// A process that lives until its input ends.
struct Cat(std::process::Child);

impl Cat {
    fn spawn() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn executable(pid: u32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn everything_has_no_filter() {
    let target = Target::resolve(&Choice::All).unwrap();
    assert_eq!(target.words, "all processes");
    assert_eq!((target.filter.by_process, target.filter.cgroup_id, target.filter.comm_len), (0, 0, 0));
    assert!(target.pids.is_empty() && !target.ended());
}

#[test]
fn a_command_does_not_run_before_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("ran");
    let mut target = start(&["touch", mark.to_str().unwrap()]);
    let stopped = target.command.take().unwrap();
    assert_eq!(target.pids, [stopped.pid()]);
    assert_eq!(target.filter.by_process, 1);
    // The process exists and is still this program's image: not one instruction of `touch` has run.
    assert_eq!(executable(stopped.pid()), executable(std::process::id()));
    assert!(!mark.exists());

    let pid = stopped.pid();
    let mut running = stopped.release().unwrap();
    assert_eq!(running.pid(), pid);
    assert!(running.wait().unwrap().success());
    assert!(mark.exists());
    assert!(target.ended());
}

#[test]
fn a_command_that_is_not_released_never_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("ran");
    let target = start(&["touch", mark.to_str().unwrap()]);
    let pid = target.pids[0];
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(target);
    // Collected too: not even a zombie is left.
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!mark.exists());
}

#[test]
fn the_exit_status_is_passed_on() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 128 + 15)] {
        let mut running = start(&["sh", "-c", script]).command.unwrap().release().unwrap();
        assert_eq!(shell_exit_code(running.wait().unwrap()), code, "{script}");
    }
    assert_eq!(shell_exit_code(ExitStatus::from_raw(255 << 8)), 255);
}

#[test]
fn an_end_can_be_awaited_and_brought_about() {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut running = start(&["sleep", "1000"]).command.unwrap().release().unwrap();
    assert!(running.try_wait().unwrap().is_none());
    let end = running.pidfd().unwrap();
    running.terminate().unwrap();
    poll(&mut [PollFd::new(&end, PollFlags::IN)], None).unwrap();
    assert_eq!(shell_exit_code(running.try_wait().unwrap().unwrap()), 128 + 15);
}

#[test]
fn exec_failures_have_the_shells_codes_and_a_cause() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    let orphan = dir.path().join("orphan");
    std::fs::write(&orphan, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&orphan, PermissionsExt::from_mode(0o755)).unwrap();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    for (program, code, cause) in [
        ("no-such-command-4711".to_owned(), 127, "command not found"),
        (path(&plain), 126, "permission denied"),
        (path(dir.path()), 126, "permission denied"),
        (path(&orphan), 127, "command not found"),
        (format!("{}/x", path(&plain)), 127, "Not a directory"),
    ] {
        let target = start(&[&program]);
        let pid = target.pids[0];
        let error = target.command.unwrap().release().unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().starts_with(&format!("cannot run {program}: {cause}")), "{error}");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}

#[test]
fn a_hostile_command_name_is_cleaned() {
    let target = start(&["\x1b[31m\n"]);
    assert!(target.words.starts_with(r"command \x1b[31m\n (pid "), "{}", target.words);
    let error = target.command.unwrap().release().unwrap_err();
    assert!(error.to_string().starts_with(r"cannot run \x1b[31m\n: "), "{error}");
    // A NUL cannot be passed on; std refuses before it forks.
    let nul = Target::resolve(&Choice::Command { words: words(&["a\0b"]), children: true }).unwrap_err();
    assert!(matches!(nul, TargetError::Spawn { .. }), "{nul}");
    assert!(matches!(
        Target::resolve(&Choice::Command { words: vec![], children: true }),
        Err(TargetError::NoCommand)
    ));
}

#[test]
fn a_command_killed_while_it_waits_is_no_hang() {
    let target = start(&["true"]);
    let pid = rustix::process::Pid::from_raw(target.pids[0] as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // std sees a child that executed nothing and closed its pipes: its status tells.
    let status = target.command.unwrap().release().unwrap().wait().unwrap();
    assert_eq!(shell_exit_code(status), 128 + 9);
}

/// A signal mask of a status file, without 32 and 33: those belong to the C library, which lets nobody change them.
fn signals(status: &str, key: &str) -> u64 {
    let mask = u64::from_str_radix(crate::host::file::field(status, key).unwrap(), 16).unwrap();
    mask & !(bit(32) | bit(33))
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[test]
fn the_waiting_command_has_default_signals() {
    let status = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // The control: Rust's runtime ignores SIGPIPE and handles SIGSEGV.
    let own = status(std::process::id());
    assert_ne!(signals(&own, "SigIgn") & bit(libc::SIGPIPE), 0);
    assert_ne!(signals(&own, "SigCgt") & bit(libc::SIGSEGV), 0);

    let target = start(&["true"]);
    let child = status(target.pids[0]);
    // What `nohup` has this test ignore stays so.
    assert_eq!(signals(&child, "SigIgn"), signals(&own, "SigIgn") & bit(libc::SIGHUP));
    assert_eq!(signals(&child, "SigCgt"), 0);
    assert_eq!(signals(&child, "SigBlk"), 0);
}

#[test]
fn ignored_signals_are_not_inherited_but_for_nohup() {
    use std::os::unix::process::CommandExt;
    let mut cat = Command::new("cat");
    // SAFETY: signal(2) is async-signal-safe, and so is `default_signals`, for it is made for this place.
    unsafe {
        cat.arg("/proc/self/status").pre_exec(|| {
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, 40] {
                libc::signal(signal, libc::SIG_IGN);
            }
            command::default_signals();
            Ok(())
        });
    }
    let status = String::from_utf8(cat.output().unwrap().stdout).unwrap();
    assert_eq!(signals(&status, "SigIgn"), bit(libc::SIGHUP));
}

#[test]
fn processes_that_are_not_there_are_named() {
    let error = processes(&[std::process::id(), 1 << 23], true).unwrap_err();
    assert_eq!(error.to_string(), "no process 8388608");
    assert!(matches!(processes(&[], true), Err(TargetError::NoPids)));
    assert!(matches!(processes(&[0], true), Err(TargetError::Process(ProcessError::NotFound { pid: 0 }))));
    let many: Vec<u32> = (1..=MAX_PIDS as u32 + 1).collect();
    assert!(matches!(processes(&many, true), Err(TargetError::TooManyPids { count: 1025 })));
}

#[test]
fn children_of_now_are_included_by_choice() {
    let cat = Cat::spawn();
    let (me, child) = (std::process::id(), cat.0.id());
    let with = processes(&[me], true).unwrap();
    assert!(with.pids.contains(&me) && with.pids.contains(&child));
    assert_eq!((with.filter.by_process, with.filter.follow_children), (1, 1));
    assert_eq!(with.words, format!("pid {me} and its children"));

    let without = processes(&[me, me], false).unwrap();
    assert_eq!(without.pids, [me]);
    assert_eq!((without.filter.by_process, without.filter.follow_children), (1, 0));
    assert_eq!(without.words, format!("pid {me}"));
    assert!(without.new_descendants().is_empty());

    let both = processes(&[child, me, child], true).unwrap();
    assert_eq!(both.pids.iter().filter(|&&pid| pid == child).count(), 1);
    cat.end();
}

#[test]
fn children_forked_after_resolving_are_found_later() {
    let target = processes(&[std::process::id()], true).unwrap();
    let cat = Cat::spawn();
    assert!(target.new_descendants().contains(&cat.0.id()));
    cat.end();
}

#[test]
fn a_target_has_ended_when_all_its_processes_have() {
    let (one, other) = (Cat::spawn(), Cat::spawn());
    let target = processes(&[one.0.id(), other.0.id()], false).unwrap();
    one.end();
    assert!(!target.ended());
    other.end();
    assert!(target.ended());
}

#[test]
fn a_name_is_compared_with_its_end() {
    let comm = |name: &str| Target::resolve(&Choice::Comm(name.into()));
    let target = comm("java").unwrap();
    assert_eq!((&target.filter.comm, target.filter.comm_len), (b"java\0\0\0\0\0\0\0\0\0\0\0\0", 5));
    assert_eq!(target.words, "threads named java");

    let longest = comm("123456789012345").unwrap();
    assert_eq!((&longest.filter.comm, longest.filter.comm_len), (b"123456789012345\0", 16));
    let longer = comm("123456789012345678").unwrap();
    assert_eq!(longer.filter.comm, longest.filter.comm);
    assert!(longer.words.ends_with("(the kernel keeps 15 bytes of a name)"), "{}", longer.words);
    assert!(matches!(comm(""), Err(TargetError::BadComm)));
    assert!(matches!(comm("a\0"), Err(TargetError::BadComm)));
}

#[test]
fn many_ids_are_not_all_shown() {
    let pids: Vec<u32> = (1..=20).collect();
    assert_eq!(process_words(&pids, true), "pids 1, 2, 3, 4, 5, 6, 7, 8 and 12 more and their children");
    assert_eq!(process_words(&[1, 2], false), "pids 1, 2");
    assert!(command_line(&words(&["x"; 300])).len() < 210);
}

#[test]
fn the_standard_streams_are_passed_on() {
    // Through a pipe made for the test: the command inherits the descriptor that the shell redirects to.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let script = format!("echo $0 > /proc/{}/fd/{fd}", std::process::id());
    let mut running = start(&["sh", "-c", &script, "hello"]).command.unwrap().release().unwrap();
    assert!(running.wait().unwrap().success());
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
}
