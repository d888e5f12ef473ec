//! What is refused before anything is asked, with files and sockets as they may be found. Real JVMs are asked in
//! tests/kernel/java_attach.rs.

use std::{
    fs::File,
    os::unix::{fs::symlink, net::UnixListener, process::ExitStatusExt},
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

use super::*;

/// A process, and a root directory with `/tmp` and a working directory of its own.
struct Place {
    directory: TempDir,
    target: Target,
}

impl Place {
    /// Of the process that listens at sockets which the test makes: this one.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(&path).unwrap();
            OwnedFd::from(File::open(path).unwrap())
        };
        open("tmp");
        let (root, cwd) = (open("."), open("cwd"));
        let own = std::process::id();
        let pid = Pid::from_raw(own as i32).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let status = process_file::read_status(own).unwrap();
        Self { directory, target: Target { pid, pidfd, root, cwd, status } }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the socket is, or the map.
    fn tmp(&self, name: &str, after: &str) -> PathBuf {
        self.path("tmp").join(format!("{name}{}{after}", self.target.status.ns_pid))
    }
}

fn why<T>(outcome: Outcome<T>) -> String {
    outcome.map(|_| "nothing wrong").map_or_else(|error| error.to_string(), str::to_owned)
}

#[test]
fn only_the_jvms_own_socket_is_connected_to() {
    let place = Place::new();
    let path = place.tmp(".java_pid", "");
    assert!(place.target.connect().unwrap().is_none(), "none");
    let listener = UnixListener::bind(&path).unwrap();
    assert!(place.target.connect().unwrap().is_some());

    let mut other = Place::new();
    fs::hard_link(&path, other.tmp(".java_pid", "")).unwrap();
    other.target.pid = Pid::INIT;
    assert_eq!(why(other.target.connect()), format!("process {} listens at its socket", std::process::id()));

    fs::rename(&path, place.path("real")).unwrap();
    symlink("../real", &path).unwrap();
    assert!(why(place.target.connect()).ends_with("is no socket"), "a link to it");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    assert!(why(place.target.connect()).ends_with("is no socket"));
    fs::remove_file(&path).unwrap();
    fs::rename(place.path("real"), &path).unwrap();
    drop(listener);
    assert!(place.target.connect().unwrap().is_none(), "left by one that is gone");

    let mut other = place;
    other.target.status.effective_uid += 1;
    assert!(why(other.target.connect()).ends_with("is of another user"));
    fs::rename(other.path("tmp"), other.path("elsewhere")).unwrap();
    symlink("elsewhere", other.path("tmp")).unwrap();
    assert!(other.target.connect().is_err(), "through a linked directory");
}

#[test]
fn a_request_is_made_where_there_is_none_and_removed() {
    let place = Place::new();
    let name = format!(".attach_pid{}", place.target.status.ns_pid);
    let [in_cwd, in_tmp] = ["cwd", "tmp"].map(|directory| place.path(directory).join(&name));
    let request = place.target.request().unwrap();
    assert!(in_cwd.exists() && !in_tmp.exists());
    drop(request);
    assert!(!in_cwd.exists());
    // A planted link is not followed, and stays.
    symlink("../victim", &in_cwd).unwrap();
    assert!(why(place.target.request().map(|_| ())).contains("is there already"));
    assert!(in_cwd.is_symlink() && !place.path("victim").exists() && !in_tmp.exists());
    // The working directory is gone.
    fs::remove_dir_all(place.path("cwd")).unwrap();
    let request = place.target.request().unwrap();
    assert!(in_tmp.exists());
    drop(request);
    assert!(!in_tmp.exists());
}

#[test]
fn a_map_is_written_where_no_other_file_is() {
    let place = Place::new();
    let path = place.tmp("perf-", ".map");
    assert!(place.target.check_map().is_ok());
    fs::write(&path, "").unwrap();
    assert!(place.target.check_map().is_ok(), "its own, of before");
    fs::remove_file(&path).unwrap();
    symlink("../victim", &path).unwrap();
    assert!(why(place.target.check_map()).ends_with("is a link, or no file"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    let mut other = place;
    other.target.status.effective_uid += 1;
    assert!(why(other.target.check_map()).ends_with("is of another user"));
}

/// The signal would end it.
#[test]
fn a_process_without_a_handler_gets_no_signal() {
    let mut child = Command::new("sleep").arg("600").current_dir("/tmp").spawn().unwrap();
    let pid = child.id();
    let started = process_file::start_ns(pid).unwrap();
    assert!(matches!(write_perf_map(pid, started), Err(AttachError::NoHandler)));
    assert!(!PathBuf::from(format!("/tmp/.attach_pid{pid}")).exists());
    assert!(matches!(write_perf_map(pid, started + 10_000_000), Err(AttachError::Gone)), "another process");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "it lived until then");
    assert!(matches!(write_perf_map(pid, started), Err(AttachError::Gone)));
}

/// As root only: others cannot take on ids.
#[test]
fn ids_are_those_of_one_thread() {
    let mut status = process_file::read_status(std::process::id()).unwrap();
    let before = (geteuid(), getegid());
    (status.effective_uid, status.effective_gid) = (12_345, 12_346);
    let seen = thread::spawn(move || {
        become_user(&status).map(|()| (geteuid().as_raw(), getegid().as_raw(), getuid()))
    });
    match seen.join().unwrap() {
        Ok(seen) => assert_eq!(seen, (12_345, 12_346, getuid())),
        Err(error) => assert!(!before.0.is_root() && matches!(error, AttachError::Ids(12_345, _)), "{error}"),
    }
    assert_eq!((geteuid(), getegid()), before);
}

#[test]
fn an_answer_without_end_is_cut() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let writer = thread::spawn(move || {
        let mut asked = [0; REQUEST.len()];
        theirs.read_exact(&mut asked).unwrap();
        // Until the other end is closed.
        while theirs.write_all(&[b'x'; 4096]).is_ok() {}
        asked
    });
    let answer = exchange(ours).unwrap();
    assert!((MAX_ANSWER..MAX_ANSWER + 4096).contains(&answer.len()), "{}", answer.len());
    assert_eq!(writer.join().unwrap(), REQUEST);
}

#[test]
fn answers_are_told() {
    assert!(answer_is_good(b"0\n").is_ok() && answer_is_good(b"0\nsomething\n").is_ok());
    let unknown = answer_is_good(b"1\njava.lang.IllegalArgumentException: Unknown diagnostic command\n");
    assert_eq!(why(unknown), "it answered: 1 java.lang.IllegalArgumentException: Unknown diagnostic command");
    for bad in [&b""[..], b"0", b"00\n", b"101\n", b"\x1b[31m\n"] {
        let AttachError::Refused(told) = answer_is_good(bad).unwrap_err() else { panic!() };
        assert!(!told.contains('\x1b'));
    }
    let long = answer_is_good(&[b'x'; 4096]);
    assert!(why(long).len() < 2 * MAX_TOLD);
}
