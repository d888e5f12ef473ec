//! What runs while a profiler is measured: a loop that counts its rounds on every CPU, compilations, a browser.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ebpf_toolchain::on_path;

use crate::{
    process::{Failure, capture, run, succeeds},
    workspace,
};

/// Builds the counting loop.
pub fn throughput_program(directory: &Path) -> Result<PathBuf, Failure> {
    let program = directory.join("throughput");
    let source = workspace::root().join("tests/workload/throughput.c");
    let flags = ["-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"];
    run(Command::new("gcc").args(flags).arg(source).arg("-o").arg(&program))?;
    Ok(program)
}

/// Rounds of the counting loop in a second of its CPU time, on every CPU at once. Interrupts and what runs in them are
/// in that time; other programs, which a wall clock would count too, are not.
pub fn throughput(program: &Path, cpus: usize, time: Duration) -> Result<f64, Failure> {
    let milliseconds = time.as_millis().to_string();
    let failure = |e: std::io::Error| Failure::new(format!("{}: {e}", program.display()));
    let mut children: Vec<Child> = Vec::new();
    for _ in 0..cpus {
        let mut command = Command::new(program);
        children.push(command.arg(&milliseconds).stdout(Stdio::piped()).spawn().map_err(failure)?);
    }
    let mut sum = 0.0;
    for child in children {
        let output = child.wait_with_output().map_err(failure)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Failure::new(format!("the workload said `{text}`: {e}")))?;
        let number = |key: &str| said[key].as_f64().unwrap_or(f64::NAN);
        sum += number("rounds") / (number("cpu_ns") / 1e9);
    }
    Ok(sum)
}

/// The machine as developers have it: compilations, one after the other, until a time is over.
pub fn compile(directory: &Path, time: Duration) -> Result<u32, Failure> {
    let start = Instant::now();
    let sources = workspace::root().join("tests/workload");
    let mut count = 0;
    while start.elapsed() < time {
        let mut compiler = Command::new("g++");
        compiler.args(["-O2", "-std=c++17", "-c"]).arg(sources.join("split.cpp"));
        run(compiler.arg("-o").arg(directory.join("split.o")))?;
        count += 1;
    }
    Ok(count)
}

/// Runs a browser on a page that computes for some time. `false`: there is no browser.
pub fn browse(directory: &Path, time: Duration) -> Result<bool, Failure> {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(on_path)
    else {
        return Ok(false);
    };
    let page = directory.join("page.html");
    let script = format!(
        "<title>x</title><script>const end = performance.now() + {};\n\
         while (performance.now() < end) JSON.parse(JSON.stringify(Array.from({{length: 1e4}}, (_, i) => [i])));\n\
         document.title = 'done'</script>",
        time.as_millis()
    );
    fs::write(&page, script).map_err(|e| Failure::io(&page, &e))?;
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", directory.join("browser").display()))
        .arg(&page)
        .stderr(Stdio::null());
    let document = capture(&mut command)?;
    if document.contains("done") { Ok(true) } else { Err(Failure::new("the browser did not run the page")) }
}

/// Empties the page cache, so that the next reading of each file is from disk.
pub fn drop_caches() -> Result<(), Failure> {
    _ = succeeds(&mut Command::new("sync"));
    let path = Path::new("/proc/sys/vm/drop_caches");
    fs::write(path, "3").map_err(|e| Failure::io(path, &e))
}
