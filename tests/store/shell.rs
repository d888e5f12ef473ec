//! The history in other hands: the shell of sqlite3, and users without rights.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use profiler::store::Writer;
use profiler_tests::{binary, history::window, skip::skip, workload};

use super::WIDE;

/// Its blocks of SQL are run.
const DOCUMENT: &str = include_str!("../../docs/store.md");

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), WIDE).unwrap();
    (1..=30).for_each(|number| writer.append(&window(number)).unwrap());
    dir
}

fn shell(database: &Path, statements: &str) -> String {
    let mut child = Command::new("sqlite3")
        .args(["-readonly", "-bail"])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(statements.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{statements}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_examples_of_the_documentation_work() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return skip("the_examples_of_the_documentation_work", "sqlite3 is not installed");
    }
    let dir = store();
    let database = dir.path().join("history.db");
    let examples: Vec<&str> =
        DOCUMENT.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for example in examples {
        assert!(!shell(&database, example).is_empty(), "no answer: {example}");
    }
    let minute = "SELECT * FROM cpu_by_process_and_minute WHERE comm = 'app-3' ORDER BY minute LIMIT 2;";
    let expected = "2026-01-02T03:00Z|1003|app-3|app.service||624000000\n";
    assert_eq!(shell(&database, minute), [expected, &expected.replace("03:00Z", "03:01Z")].concat());
    let functions = "SELECT function, sum(samples), sum(cpu_ns) FROM samples_by_function
        WHERE start >= '2026-01-02T03:01' GROUP BY function ORDER BY function LIMIT 1;";
    assert_eq!(shell(&database, functions), "work_10_0|2|104000000\n");
    let frames = "SELECT depth, function, module, line FROM stack_frames WHERE stack = 1 ORDER BY depth;";
    assert_eq!(shell(&database, frames), "0|work_1_0|/usr/bin/app|0\n1|main_0|/usr/bin/app|0\n");
    let host = "SELECT sum(value) FROM host_numbers WHERE metric = 'cpu';";
    assert_eq!(shell(&database, host), "62400000000\n");
    assert_eq!(shell(&database, "PRAGMA integrity_check;"), "ok\n");
}

#[test]
fn a_user_without_rights_is_told_so() {
    let dir = store();
    let nobody = |store: &Path| {
        let output = Command::new(workload::path("enter"))
            .args(["nobody", "--"])
            .arg(binary::profiler())
            .args(["query", "--list", "--store"])
            .arg(store)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = nobody(dir.path());
    assert_eq!(code, Some(3), "{message}");
    assert!(
        message.contains("no right to use this store") && message.contains("read it as root"),
        "{message}"
    );
    let root = Command::new(binary::profiler()).args(["query", "--list", "--store"]).arg(dir.path()).output();
    assert!(String::from_utf8(root.unwrap().stdout).unwrap().contains("app-3"));
}
