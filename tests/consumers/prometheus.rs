//! Prometheus scrapes the daemon's HTTP server, with native histograms and without, and gives back the numbers that were put
//! in.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use profiler::daemon::{
    config::Listen,
    http::{Limits, Listener, serve},
    state::State,
};
use profiler_tests::skip::skip;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    metrics::{NAMES, window},
    tools::find,
};

/// Longest wait for Prometheus to start and to scrape: a machine that is busy with other builds takes long.
const PATIENCE: Duration = Duration::from_secs(120);

/// The daemon's server at a port of its own, for as long as the process lives.
fn daemon() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (state, _commands) = State::new("/none".into(), Duration::from_secs(10), 100);
            state.window(&window(), true);
            let listen = Listen::parse("127.0.0.1:0").unwrap();
            let listener = Listener::listen(&listen).await.unwrap().unwrap();
            let Listener::Tcp(tcp) = &listener else { panic!("it is TCP") };
            sender.send(tcp.local_addr().unwrap()).unwrap();
            serve(listener, Arc::new(state), None, Limits::default()).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

/// A Prometheus that scrapes it, with its files.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(test: &str, target: SocketAddr, features: &[&str]) -> Option<Self> {
        let Some(program) = find("prometheus") else {
            skip(test, "no Prometheus: `cargo xtask setup --tests`");
            return None;
        };
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: profiler, static_configs: [{{targets: \
             ['{target}']}}]}}]\n"
        );
        fs::write(&config, text).unwrap();
        // Free a moment ago; Prometheus cannot tell which port it was given.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(features)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { child, address, directory })
    }

    /// The value of a query with one result, as soon as there is one.
    fn value(&self, query: &str) -> f64 {
        let begun = Instant::now();
        loop {
            let answer = self.query(query);
            let result = answer.as_ref().and_then(|answer| answer.pointer("/data/result")?.as_array());
            if let Some([one]) = result.map(Vec::as_slice) {
                return one["value"][1].as_str().unwrap().parse().unwrap();
            }
            if begun.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
                panic!("{query}: {answer:?}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn query(&self, query: &str) -> Option<Value> {
        let mut escaped = String::new();
        query.bytes().for_each(|byte| escaped += &format!("%{byte:02x}"));
        let mut stream = TcpStream::connect(self.address).ok()?;
        write!(stream, "GET /api/v1/query?query={escaped} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn check_numbers(&self) {
        for (name, scale) in NAMES.iter().zip(1u32..) {
            let query = format!("profiler_cpu_seconds_total{{comm={}}}", Value::from(*name));
            assert_eq!(self.value(&query), 1.25 * f64::from(scale), "{query}");
        }
        assert_eq!(self.value("sum(profiler_cpu_seconds_total)"), 1.25 * 21.0);
        assert_eq!(self.value("profiler_host_cpu_seconds_total"), 125.0);
        assert_eq!(self.value("count(profiler_build_info)"), 1.0);
    }
}

#[test]
fn prometheus_scrapes_native_histograms() {
    let test = "prometheus_scrapes_native_histograms";
    let features = ["--enable-feature=native-histograms"];
    let Some(prometheus) = Prometheus::start(test, daemon(), &features) else { return };
    prometheus.check_numbers();
    let waits = "profiler_host_run_queue_wait_seconds";
    assert_eq!(prometheus.value(&format!("histogram_count({waits})")), 600.0);
    assert_eq!(prometheus.value(&format!("histogram_sum({waits})")), 0.3);
    // 300 of 600 are not above 1087 ns, in the bucket from 1.040 to 1.134 µs; the others in that from 4.26 to 4.65 ms.
    let fraction =
        |from: &str, to: &str| prometheus.value(&format!("histogram_fraction({from}, {to}, {waits})"));
    assert_eq!(fraction("-Inf", "0.0000005"), 1.0 / 6.0);
    assert_eq!(fraction("0.00000103", "0.00000114"), 2.0 / 6.0);
    assert_eq!(fraction("0.00425", "0.00465"), 3.0 / 6.0);
}

#[test]
fn prometheus_scrapes_classic_histograms() {
    let Some(prometheus) = Prometheus::start("prometheus_scrapes_classic_histograms", daemon(), &[]) else {
        return;
    };
    prometheus.check_numbers();
    let bucket =
        |le: &str| prometheus.value(&format!("profiler_host_run_queue_wait_seconds_bucket{{le=\"{le}\"}}"));
    assert_eq!(bucket("+Inf"), 600.0);
    let upto = "sum(profiler_host_run_queue_wait_seconds_bucket{le=~\"(4.095e-06|0.000004095)\"})";
    assert_eq!(prometheus.value(upto), 300.0);
}
