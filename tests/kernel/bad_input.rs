//! What cannot work: a clear line of cause, the documented exit code, no panic, and nothing lost of what was recorded.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use profiler_tests::{
    binary,
    record::{Record, Recorded, code, fails_with, no_panic, profiler},
    target::Target,
    view::View,
    workload,
};
use tempfile::TempDir;

// Exit codes as the README documents them.
const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const UNSUPPORTED: i32 = 3;
const NO_TARGET: i32 = 4;

fn fails(what: &str, recorded: &Recorded, expected: i32, part: &str) {
    fails_with(what, recorded.status(), &recorded.stderr(), expected, part);
}

#[test]
fn a_process_that_never_was() {
    // Above the largest process id there can be (PID_MAX_LIMIT, 4 Mi).
    fails("unknown", &Record::new().args(["-p", "4194305"]).run(), NO_TARGET, "4194305");
    fails("zero", &Record::new().args(["-p", "0"]).run(), NO_TARGET, "0");
}

#[test]
fn a_process_that_has_ended() {
    let mut target = Target::start(&workload::path("burner"), &["0", "forever"]).giving_way();
    let pid = target.pid().to_string();
    target.kill();
    fails("dead", &Record::new().args(["-p", &pid]).run(), NO_TARGET, &pid);
}

#[test]
fn a_process_that_has_ended_but_was_not_waited_for() {
    let mut zombie = std::process::Command::new("true").spawn().unwrap();
    let pid = zombie.id().to_string();
    let is_zombie =
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !is_zombie() {
        std::thread::yield_now();
    }
    fails("zombie", &Record::new().args(["-p", &pid]).run(), NO_TARGET, &pid);
    zombie.wait().unwrap();
}

#[test]
fn a_process_that_vanishes_while_recorded() {
    let mut target = Target::start(&workload::path("burner"), &["0", "forever"]).giving_way();
    let mut recording = Record::at_999().args(["-p", &target.pid().to_string()]).start();
    recording.wait_until_sampling();
    target.kill();
    // It ends with its last target.
    let recorded = recording.finish();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    assert_eq!(view.total(), view.of_pid(u64::from(target.pid())));
}

#[test]
fn a_process_id_that_is_no_number() {
    for pid in ["x", "-1", "1,", "99999999999", "1 2"] {
        let recorded = Record::new().args(["--pid", pid]).run();
        assert_eq!(recorded.code(), USAGE, "{pid}: {}", recorded.describe());
        no_panic(pid, &recorded.stderr());
    }
}

#[test]
fn absurd_rates() {
    for rate in ["0", "-1", "x", "1000000000", "18446744073709551615", "99999999999999999999"] {
        let recorded = Record::new().args(["-d", "0.1", &format!("--frequency={rate}")]).run();
        assert_eq!(recorded.code(), USAGE, "{rate}: {}", recorded.describe());
        no_panic(rate, &recorded.stderr());
    }
}

#[test]
fn absurd_durations() {
    for duration in ["0", "-1", "x", "NaN", "inf", "1e300"] {
        let recorded = Record::new().args([&format!("--duration={duration}")]).run();
        assert_eq!(recorded.code(), USAGE, "{duration}: {}", recorded.describe());
        no_panic(duration, &recorded.stderr());
    }
}

#[test]
fn an_unknown_event_is_told_with_those_there_are() {
    let recorded = Record::new().args(["-d", "0.1", "-e", "nonsense"]).run();
    assert_eq!(recorded.code(), USAGE, "{}", recorded.describe());
    assert!(
        recorded.stderr().contains("nonsense") && recorded.stderr().contains("cpu"),
        "{}",
        recorded.stderr()
    );
}

#[test]
fn a_cgroup_that_is_not_there() {
    let recorded = Record::new().args(["-d", "0.1", "--cgroup", "/no/such/group"]).run();
    fails("cgroup", &recorded, NO_TARGET, "/no/such/group");
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_recording() {
    // Without a duration: it would never end if it began.
    for path in ["/no/such/directory/x.pb.gz", "/proc/x.svg", "/"] {
        let recorded = Record::new().args(["-o", path]).run();
        assert!([FAILURE, USAGE].contains(&recorded.code()), "{path}: {}", recorded.describe());
        fails(path, &recorded, recorded.code(), path);
    }
}

#[test]
fn an_output_of_unknown_format() {
    let recorded = Record::new().output("profile.xyz").run();
    fails("xyz", &recorded, USAGE, "profile.xyz");
}

/// The recording does not fit on its disk; the other outputs are whole.
#[test]
fn a_full_disk_loses_only_what_does_not_fit() {
    let disk = TempDir::new().unwrap();
    let enter = workload::path("enter");
    let small = format!("full={}", disk.path().display());
    let full = disk.path().join("too_large.pb.gz");
    let recorded = Record::at_999()
        .under(&enter, [small.as_str(), "--"])
        .args(["-o".as_ref(), full.as_os_str()])
        .output("out.folded")
        .command(&workload::path("burner"), ["300"])
        .run();
    fails("full disk", &recorded, FAILURE, "too_large.pb.gz");
    assert!(recorded.stderr().to_lowercase().contains("no space left"), "{}", recorded.stderr());
    let profile = recorded.profile();
    assert!(View::of(&profile).with("burner_work") > 0);
    assert!(String::from_utf8(recorded.output("out.folded")).unwrap().contains("burner_work"));
}

#[test]
fn a_full_standard_output() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let directory = TempDir::new().unwrap();
    let output = std::process::Command::new(binary::profiler())
        .args(["record", "-F", "999", "-o", "profile.pb.gz", "-o", "-", "--format", "text", "--", "true"])
        .current_dir(&directory)
        .stdout(full)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    fails_with("/dev/full", output.status, &stderr, FAILURE, "no space left");
    assert!(directory.path().join("profile.pb.gz").exists());
}

/// A reader that has seen enough is no failure.
#[test]
fn a_closed_pipe_is_no_failure() {
    let (recording, _directory) = recording();
    let mut child = std::process::Command::new(binary::profiler())
        .arg("report")
        .arg(&recording)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(output.status), 0);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A recording of real work.
fn recording() -> (std::path::PathBuf, TempDir) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("good.pb.gz");
    let recorded = Record::at_999().command(&workload::path("threads"), ["100"]).run();
    recorded.succeeded();
    fs::copy(recorded.path("profile.pb.gz"), &path).unwrap();
    (path, directory)
}

/// Reports a damaged recording.
fn report_fails(what: &str, path: &Path) {
    let output = profiler(["report".as_ref(), path.as_os_str()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    fails_with(what, output.status, &stderr, USAGE, path.to_str().unwrap());
}

#[test]
fn recordings_that_are_none() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file.pb.gz");
    report_fails("missing", &file);
    for (what, bytes) in [
        ("empty", &b""[..]),
        ("text", b"this is no recording\n"),
        ("an ELF file", b"\x7fELF\x02\x01\x01"),
        (
            "gzip of nothing",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        report_fails(what, &file);
    }
    report_fails("a directory", directory.path());
    report_fails("endless", Path::new("/dev/zero"));
}

#[test]
fn truncated_recordings() {
    let (good, directory) = recording();
    let bytes = fs::read(&good).unwrap();
    let file = directory.path().join("cut.pb.gz");
    // Every length of the head, and 40 further ones.
    let step = (bytes.len() / 40).max(1);
    for length in (1..20).chain((20..bytes.len()).step_by(step)) {
        fs::write(&file, &bytes[..length]).unwrap();
        report_fails(&format!("{length} of {} bytes", bytes.len()), &file);
    }
}

/// Damaged in the protobuf itself, behind an intact gzip: read as what it can be, or refused; never a panic, never
/// more memory than its size warrants.
#[test]
fn corrupt_recordings() {
    let (good, directory) = recording();
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(&good).unwrap()).read_to_end(&mut plain).unwrap();
    let file = directory.path().join("corrupt.pb");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % below
    };
    for _ in 0..150 {
        let mut bytes = plain.clone();
        for _ in 0..=next(8) {
            let at = next(bytes.len());
            bytes[at] = [0, 0x7f, 0x80, 0xff, bytes[at] ^ 1][next(5)];
        }
        fs::write(&file, &bytes).unwrap();
        let output = profiler(["report".as_ref(), file.as_os_str()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!([0, USAGE].contains(&code(output.status)), "{}: {stderr}", output.status);
        no_panic("report", &stderr);
        no_panic("report", &String::from_utf8(output.stdout).expect("the report is UTF-8"));
    }
}

/// 4 GiB of zeros in 4 MiB.
#[test]
fn a_recording_that_unpacks_without_end() {
    use std::io::Write as _;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("bomb.pb.gz");
    let mut gzip =
        flate2::write::GzEncoder::new(fs::File::create(&file).unwrap(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..512 {
        gzip.write_all(&zeros).unwrap();
    }
    let member = gzip.finish().map(|_| fs::read(&file).unwrap()).unwrap();
    // Members of a gzip file follow each other.
    let mut out = fs::OpenOptions::new().append(true).open(&file).unwrap();
    for _ in 0..7 {
        out.write_all(&member).unwrap();
    }
    report_fails("bomb", &file);
}

/// Runs a copy of the profiler, in a directory that anyone may read, as nobody and without capabilities.
fn unprivileged(arguments: &[&str]) -> std::process::Output {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let copy = directory.path().join("profiler");
    fs::copy(binary::profiler(), &copy).unwrap();
    std::process::Command::new(workload::path("enter"))
        .args(["nobody", "--"])
        .arg(&copy)
        .args(arguments)
        .current_dir(&directory)
        .output()
        .unwrap()
}

#[test]
fn without_privileges_the_missing_one_is_named() {
    let output = unprivileged(&["record", "-d", "0.1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    fails_with("nobody", output.status, &stderr, UNSUPPORTED, "doctor");
    assert!(stderr.contains("CAP_"), "{stderr}");
}

#[test]
fn without_privileges_no_command_is_started() {
    let directory = TempDir::new().unwrap();
    let mark = directory.path().join("mark");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let output = unprivileged(&["record", "--", "touch", mark.to_str().unwrap()]);
    assert_eq!(code(output.status), UNSUPPORTED);
    assert!(!mark.exists(), "the command ran although nothing could be recorded");
}

#[test]
fn without_privileges_a_recording_can_be_reported() {
    let (good, directory) = recording();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&good, fs::Permissions::from_mode(0o644)).unwrap();
    let output = unprivileged(&["report", good.to_str().unwrap()]);
    assert_eq!(code(output.status), 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("thread_delta_work"));
}

#[test]
fn without_privileges_the_doctor_explains() {
    let output = unprivileged(&["doctor"]);
    let text = String::from_utf8(output.stdout).unwrap();
    no_panic("doctor", &text);
    no_panic("doctor", &String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("CAP_BPF") || text.contains("CAP_PERFMON"), "{text}");
}

/// Without BTF there are no field offsets: what needs them is off and says so; what does not works.
#[test]
fn without_btf_it_works_degraded_or_says_why_not() {
    let recorded = Record::at_999()
        .args(["-a", "--btf", "/nonexistent"])
        .command(&workload::path("burner"), ["300"])
        .run();
    let profile = recorded.succeeded();
    assert!(View::of(&profile).with("burner_work") > 0);
    let notes = profile.meta.notes.join("\n");
    assert!(notes.contains("BTF"), "the recording does not say that BTF was missing: {notes:?}");
}

#[test]
fn a_btf_file_that_is_none() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("vmlinux");
    for bytes in [&b""[..], b"garbage", b"\x9f\xeb\x01\x00\x18\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"] {
        fs::write(&file, bytes).unwrap();
        let recorded = Record::at_999()
            .args(["-a".as_ref(), "--btf".as_ref(), file.as_os_str()])
            .command(&workload::path("burner"), ["100"])
            .run();
        no_panic("BTF", &recorded.stderr());
        assert!([0, UNSUPPORTED].contains(&recorded.code()), "{}", recorded.describe());
    }
}

#[test]
fn contradictions_are_usage_errors() {
    for arguments in [
        &["-a", "-p", "1"][..],
        &["--kernel-only", "--user-only"],
        &["-p", "1", "--", "true"],
        &["--no-such-option"],
    ] {
        let recorded = Record::new().args(arguments).run();
        assert_eq!(recorded.code(), USAGE, "{arguments:?}: {}", recorded.describe());
        no_panic("usage", &recorded.stderr());
    }
}
