//! Names that a target chooses: in comm, in paths, in symbols. None may reach an output as they are.

use profiler_tests::{
    expect,
    record::{Record, Recorded, no_panic, profiler},
    view::{Entry, View},
    workload,
};
use tempfile::TempDir;

const TIME: &str = "200";
const TIME_NS: u64 = 200_000_000;

fn with_all_outputs() -> Record {
    Record::at_999()
        .output("out.folded")
        .output("out.svg")
        .output("out.json")
        .output("out.txt")
        .args(["--per-thread"])
}

/// Checks all outputs: text without control characters, SVG and JSON without markup of a name, folded stacks with a
/// count at the end of each line.
fn is_clean(recorded: &Recorded) {
    let text = |name: &str| {
        let text =
            String::from_utf8(recorded.output(name)).unwrap_or_else(|e| panic!("{name} is not UTF-8: {e}"));
        no_panic(name, &text);
        text
    };
    let svg = text("out.svg");
    for markup in ["<script>alert", "<script>x", "<svg onload", "<b>"] {
        assert!(!svg.contains(markup), "{markup} in the SVG");
    }
    serde_json::from_str::<serde_json::Value>(&text("out.json")).expect("valid JSON");
    text("out.txt");
    for line in text("out.folded").lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count: {line}"));
        assert!(count.parse::<u64>().is_ok_and(|count| count > 0), "{line}");
        assert!(stack.split(';').all(|frame| !frame.is_empty()), "an empty frame: {line}");
    }
    let report = profiler(["report".as_ref(), recorded.path("profile.pb.gz").as_os_str()]);
    assert!(report.status.success(), "{}", String::from_utf8_lossy(&report.stderr));
    no_panic("report", &String::from_utf8(report.stdout).expect("the report is UTF-8"));
    no_panic("messages", &recorded.stderr());
}

#[test]
fn command_names_are_cleaned() {
    let recorded = with_all_outputs().command(&workload::path("hostile_comm"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    // As `hostile_comm.c` has them; a name has at most 15 bytes.
    let names = [
        r"\x1b[31m\x1b]0;x\x07",
        "<script>x()</s>",
        r"two\nlines\r\tx",
        "\u{fffd}\u{fffd}\u{fffd}\u{fffd}(",
        "\"quo';te\" 12 &",
        "[empty]",
    ];
    for name in names {
        let count = view.count(|e| e.thread.name == name && e.has("hostile_comm_work"));
        expect::samples(&format!("{name:?}{}", view.list(|_| true)), count, TIME_NS, &profile, 0.08);
    }
    is_clean(&recorded);
}

#[test]
fn symbol_names_are_cleaned() {
    let recorded = with_all_outputs().command(&workload::path("hostile_symbols"), [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::nothing_lost(&profile);
    let names = [
        "<script>alert(1)</script>&amp;<svg onload=x>",
        "semi;colon;main 12345",
        "quote'single`back${x}%s%n",
        "control\\n\\x1b[2J\\t\u{fffd}\\x01end",
    ];
    for name in names {
        let what = format!("{name:?}{}", view.list(|_| true));
        expect::samples(&what, view.with(name), TIME_NS, &profile, 0.08);
    }
    let endless = |e: &Entry<'_>| {
        e.frames
            .iter()
            .any(|f| f.function.name.starts_with("endless_1234512345") && f.function.name.ends_with("..."))
    };
    expect::samples("the name of 5,000 bytes", view.count(endless), TIME_NS, &profile, 0.08);
    is_clean(&recorded);
}

#[test]
fn paths_are_cleaned() {
    let directory = TempDir::new().unwrap();
    let hostile = directory.path().join("<script>alert(1)<\n\x1b[31m;\"a' b 12");
    std::fs::create_dir(&hostile).unwrap();
    let burner = workload::copy("burner", &hostile.join("b;<b>\n\x1b[2J 7"));
    let recorded = with_all_outputs().command(&burner, [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::samples("burner_work", view.with("burner_work"), TIME_NS, &profile, 0.08);
    let module = profile.modules.iter().find(|m| m.path.contains("b;<b>")).expect("the program's module");
    // The kernel itself writes a line break of a path as \012.
    let ends = [r"b;<b>\n\x1b[2J 7", r"b;<b>\012\x1b[2J 7"];
    assert!(ends.iter().any(|end| module.path.ends_with(end)), "{}", module.path);
    is_clean(&recorded);
}

#[test]
fn a_path_of_4_kib_is_named() {
    let directory = TempDir::new().unwrap();
    // Components of 250 bytes, up to what the kernel takes (PATH_MAX, 4,096 with the end).
    let mut path = directory.path().canonicalize().unwrap();
    while path.as_os_str().len() + 251 + "/burner".len() < 4096 {
        path.push("x".repeat(250));
    }
    std::fs::create_dir_all(&path).unwrap();
    let burner = workload::copy("burner", &path);
    let recorded = with_all_outputs().command(&burner, [TIME]).run();
    let profile = recorded.succeeded();
    let view = View::of(&profile);
    expect::samples("burner_work", view.with("burner_work"), TIME_NS, &profile, 0.08);
    is_clean(&recorded);
}
