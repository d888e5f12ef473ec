//! speedscope opens the recording and the folded stacks: it shows the profile's name once it has read it.

use std::{fs, io::Write as _, process::Command, process::Stdio};

use profiler_tests::{binary::build_directory, skip::skip};
use tempfile::TempDir;

use crate::{
    browser::{chromium, document},
    tools::recording,
};

/// Opens an output as the program `speedscope FILE` does: its page, with a script that holds the file.
fn opens(test: &str, file: &str) {
    let package = build_directory().join("consumers/node_modules/speedscope/dist/release");
    if !package.join("index.html").exists() {
        return skip(test, "no speedscope: `cargo xtask setup --tests`");
    }
    let Some(browser) = chromium(test) else { return };
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("profile.js");
    let text = base64(&recording().output(file));
    fs::write(&script, format!("speedscope.loadFileFromBase64(\"{file}\", \"{text}\")")).unwrap();
    let page =
        format!("file://{}#localProfilePath={}", package.join("index.html").display(), script.display());
    let document = document(&browser, &page);
    let (_, title) = document.split_once("<title>").unwrap_or_else(|| panic!("{document}"));
    let (title, _) = title.split_once("</title>").unwrap_or_else(|| panic!("{document}"));
    assert!(title.contains(file) && title.contains("speedscope"), "its title is {title:?}");
    assert!(!document.contains("Something went wrong"), "{document}");
}

fn base64(bytes: &[u8]) -> String {
    let mut child = Command::new("base64")
        .arg("--wrap=0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils are installed");
    child.stdin.take().expect("it is piped").write_all(bytes).expect("it reads all");
    let output = child.wait_with_output().expect("it is our child");
    String::from_utf8(output.stdout).expect("base64 is ASCII")
}

#[test]
fn speedscope_opens_the_recording() {
    opens("speedscope_opens_the_recording", "profile.pb.gz");
}

#[test]
fn speedscope_opens_folded_stacks() {
    opens("speedscope_opens_folded_stacks", "out.folded");
}
