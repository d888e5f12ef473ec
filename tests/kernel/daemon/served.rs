//! What the daemon serves against what its history has; and clients that are slow, silent or broken.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use profiler::{model::Profile, render::pprof};
use profiler_tests::{target::Target, workload};
use serde_json::Value;

use super::{Daemon, metric, numbers};

/// A daemon that serves HTTP at a port of its own.
fn start(window_s: u32) -> (Daemon, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (Daemon::start(window_s, &["--http-listen", &address.to_string()]), address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
    stream
}

/// What a path answers: status and body.
fn get(address: SocketAddr, path: &str) -> (u16, Vec<u8>) {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
}

fn text(address: SocketAddr, path: &str) -> String {
    let (status, body) = get(address, path);
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn json(address: SocketAddr, path: &str) -> Value {
    serde_json::from_str(&text(address, path)).unwrap()
}

/// The sum of a metric over all series of a page that have a label.
fn sum(page: &str, name: &str, label: &str) -> f64 {
    let samples = page.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    samples.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Checks that seconds are so many nanoseconds, but for what is lost by adding up fractions.
fn same(what: &str, seconds: f64, ns: u64) {
    assert!((seconds * 1e9 - ns as f64).abs() < 1e3, "{what}: {seconds} s, and {ns} ns");
}

/// Checks a page of metrics against the history's numbers that are not in `before`.
fn check_metrics(page: &str, daemon: &Daemon, before: &Value) {
    let now = daemon.query_json(&["--accounts", "--json"]);
    let of = |accounts: &Value, process: Option<&str>, name: &str| {
        let rows = accounts["rows"].as_array().into_iter().flatten();
        let rows = rows
            .filter(|row| process.is_none_or(|process| row["process"] == process || row["comm"] == process));
        let rows: Vec<Value> = rows.cloned().collect();
        metric(&numbers(&serde_json::json!({ "rows": rows }), None), name)
    };
    for process in [Some("split-c"), None] {
        let label = process.map_or(String::new(), |process| format!("comm=\"{process}\""));
        let since = |name: &str| of(&now, process, name) - of(before, process, name);
        same("CPU time", sum(page, "profiler_cpu_seconds_total", &label), since("cpu"));
        same("waits", sum(page, "profiler_run_queue_seconds_total", &label), since("run_queue"));
        let exact = [
            ("profiler_syscalls_total", "syscalls"),
            ("profiler_voluntary_switches_total", "voluntary_switches"),
            ("profiler_net_sent_bytes_total", "net_sent"),
        ];
        for (name, metric) in exact {
            assert_eq!(sum(page, name, &label) as u64, since(metric), "{name} {label}");
        }
        assert!(since("cpu") > 0, "{label}");
    }
}

#[test]
fn what_is_served_is_what_the_history_has() {
    let (daemon, address) = start(60);
    assert_eq!(get(address, "/healthz").0, 200);
    assert_eq!(get(address, "/readyz").0, 503, "no window yet");
    let mut target = Target::start(&workload::path("split-c"), &["600000"]);
    thread::sleep(Duration::from_millis(1500));
    daemon.flush();
    assert_eq!(get(address, "/readyz").0, 200);
    // Nothing comes in addition from now on.
    assert!(daemon.ctl("stop").is_some());
    assert_eq!((daemon.status()["state"].as_str(), get(address, "/readyz").0), (Some("paused"), 503));
    assert!(daemon.ctl("flush").is_none(), "there is nothing to flush");

    super::wait_for("the last window", || daemon.windows().len() == 2);
    let mut windows = daemon.windows();
    windows.iter_mut().for_each(|window| drop(window.as_object_mut().unwrap().remove("start")));
    assert_eq!(json(address, "/api/v1/windows?last=1h")["windows"], Value::Array(windows));
    let folded = daemon.query(&["--event", "cpu", "-o", "-", "--format", "folded"]);
    assert!(String::from_utf8_lossy(&folded.stdout).contains("split_work"));
    assert_eq!(
        text(address, "/api/v1/profile?last=1h&event=cpu&format=folded").into_bytes(),
        folded.stdout,
        "the same samples"
    );
    let profile = daemon.query_json(&["-o", "-", "--format", "json"]);
    assert_eq!(json(address, "/api/v1/profile?last=1h")["samples"], profile["samples"]);
    check_metrics(&text(address, "/metrics"), &daemon, &Value::Null);

    assert!(daemon.ctl("start").is_some());
    super::wait_for("recording", || daemon.status()["state"] == "recording");
    on_demand(address, target.pid());
    // The history stays; what is counted begins anew.
    let before = daemon.query_json(&["--accounts", "--json"]);
    assert!(daemon.ctl("reset").is_some());
    let page = text(address, "/metrics");
    assert_eq!(sum(&page, "profiler_cpu_seconds_total", ""), 0.0);
    assert_eq!(sum(&page, "profiler_host_cpu_seconds_total", ""), 0.0);
    assert_eq!(sum(&page, "profiler_windows_written_total", ""), 2.0, "of itself all is kept");
    daemon.flush();
    check_metrics(&text(address, "/metrics"), &daemon, &before);
    assert_eq!(daemon.windows().len(), 3);
    target.kill();
    daemon.stop();
}

/// Checks a profile on demand of a process.
fn on_demand(address: SocketAddr, pid: u32) {
    let (status, body) = get(address, &format!("/debug/pprof/profile?seconds=1&hz=199&pid={pid}"));
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let profile: Profile = pprof::read(&*body).unwrap();
    let samples = profile.column("samples").map(|column| profile.total(column)).unwrap();
    assert!((1..=210).contains(&samples), "{samples} samples of a second of one thread");
    assert!(profile.functions.iter().any(|function| function.name.contains("split_work")));
    assert_eq!(get(address, "/debug/pprof/profile?seconds=1&pid=4194305").0, 400);
}

/// How many connections there are at a time.
const CLIENTS: usize = 1000;

/// Makes a client of one kind.
fn client(address: SocketAddr, number: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_nonblocking(true).ok()?;
    let request: &[u8] = match number % 7 {
        // It says nothing.
        0 => b"",
        // Half of a head.
        1 => b"GET /metrics HTTP/1.1\r\nHost: local",
        // No HTTP.
        2 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n",
        // It reads nothing of what it asks for.
        3 => b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        4 => b"GET /api/v1/profile?last=1h HTTP/1.1\r\nHost: localhost\r\n\r\n",
        // It wants a profile, and goes.
        5 => b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        // It ends what it sends, in the middle.
        _ => b"GET /api/v1/windows?last=1h HTTP/1.1\r\n",
    };
    // Who has no room is closed, at once.
    _ = stream.write(request);
    match number % 7 {
        5 => _ = stream.shutdown(Shutdown::Both),
        6 => _ = stream.shutdown(Shutdown::Write),
        _ => {}
    }
    Some(stream)
}

#[test]
fn bad_clients_make_no_window_late() {
    let (daemon, address) = start(1);
    daemon.flush();
    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut clients: Vec<Option<TcpStream>> = Vec::new();
            // The oldest makes room for the next one, when all are there: for so long, it holds its connection.
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let new = client(address, number);
                match clients.len() < CLIENTS {
                    true => clients.push(new),
                    false => clients[number % CLIENTS] = new,
                }
                made.store(number as u64 + 1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        let begun = daemon.windows().len();
        super::wait_for("windows", || {
            made.load(Ordering::Relaxed) > 2 * CLIENTS as u64 && daemon.windows().len() >= begun + 8
        });
        over.store(true, Ordering::Relaxed);
    });
    let status = daemon.status();
    assert_eq!(status["windows"]["not_kept"], 0, "{status}");
    let windows = daemon.windows();
    for (window, number) in windows.iter().zip(1..) {
        assert_eq!(window["number"], number, "none is missing");
        // Late is what something waits for: seconds. Twice the length leaves a busy machine its time.
        assert!(window["duration_ns"].as_u64().unwrap() < 2_000_000_000, "{window}");
    }
    // And who asks properly is answered, as soon as there is room.
    super::wait_for("an answer", || {
        let mut stream = connect(address);
        let mut answer = String::new();
        _ = write!(stream, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    });
    daemon.stop();
}
