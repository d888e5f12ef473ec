//! Prometheus (with native histograms and without) and VictoriaMetrics scrape the daemon's HTTP server and give back the numbers
//! that were put in; `go tool pprof` takes a profile from it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use profiler::{
    daemon::{
        config::Listen,
        control::{Command as Order, ProfileRequest},
        http::{Limits, Listener, serve},
        state::State,
    },
    render::pprof,
};
use profiler_tests::skip::skip;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    metrics::{NAMES, window},
    tools::{find, output},
};

/// Longest wait for Prometheus to start and to scrape: a machine that is busy with other builds takes long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the daemon gives as a profile on demand.
const PROFILE: &[u8] = include_bytes!("../golden/mixed.pb.gz");

/// The daemon's server at a port of its own, for as long as the process lives.
fn daemon() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (state, mut orders) = State::new("/none".into(), Duration::from_secs(10), 100);
            state.window(&window(), true);
            tokio::spawn(async move {
                while let Some(Order::Profile(request, _permit, reply)) = orders.recv().await {
                    let asked = ProfileRequest { seconds: 1, pid: Some(7), frequency_hz: Some(99) };
                    let profile = (request == asked).then(|| pprof::read(PROFILE).unwrap());
                    reply.send(profile.ok_or_else(|| format!("{request:?}"))).unwrap();
                }
            });
            let listen = Listen::parse("127.0.0.1:0").unwrap();
            let listener = Listener::listen(&listen).await.unwrap().unwrap();
            let Listener::Tcp(tcp) = &listener else { panic!("it is TCP") };
            sender.send(tcp.local_addr().unwrap()).unwrap();
            serve(listener, Arc::new(state), None, Limits::default()).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

/// A database that scrapes it, with its files.
struct Database {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Drop for Database {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// How a database is told what to scrape, where to keep it, where to listen.
type Arguments = fn(config: &str, data: &str, address: SocketAddr) -> Vec<String>;

const PROMETHEUS: Arguments = |config, data, address| {
    vec![
        format!("--config.file={config}"),
        format!("--storage.tsdb.path={data}"),
        format!("--web.listen-address={address}"),
    ]
};

const VICTORIA_METRICS: Arguments = |config, data, address| {
    vec![
        format!("-promscrape.config={config}"),
        format!("-storageDataPath={data}"),
        format!("-httpListenAddr={address}"),
        // Else a query sees what is older than 30 s.
        "-search.latencyOffset=1s".to_owned(),
    ]
};

impl Database {
    fn start(test: &str, program: &str, arguments: Arguments, features: &[&str]) -> Option<Self> {
        let Some(program) = find(program) else {
            skip(test, &format!("no {program}: `cargo xtask setup --tests`"));
            return None;
        };
        let directory = TempDir::new().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: profiler, static_configs: [{{targets: \
             ['{}']}}]}}]\n",
            daemon()
        );
        fs::write(file("scrape.yml"), text).unwrap();
        // Free a moment ago; they cannot tell which port they were given.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(arguments(&file("scrape.yml"), &file("data"), address))
            .args(features)
            .stdout(Stdio::null())
            .stderr(fs::File::create(file("log")).unwrap())
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

    fn check_buckets(&self) {
        let buckets = "profiler_host_run_queue_wait_seconds_bucket";
        assert_eq!(self.value(&format!("{buckets}{{le=\"+Inf\"}}")), 600.0);
        // Who reads OpenMetrics writes a bound as it prints numbers itself.
        assert_eq!(self.value(&format!("sum({buckets}{{le=~\"4.095e-06|0.000004095\"}})")), 300.0);
    }
}

#[test]
fn prometheus_scrapes_native_histograms() {
    let (test, features) = ("prometheus_scrapes_native_histograms", ["--enable-feature=native-histograms"]);
    let Some(prometheus) = Database::start(test, "prometheus", PROMETHEUS, &features) else { return };
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
    let test = "prometheus_scrapes_classic_histograms";
    if let Some(prometheus) = Database::start(test, "prometheus", PROMETHEUS, &[]) {
        prometheus.check_numbers();
        prometheus.check_buckets();
    }
}

#[test]
fn victoria_metrics_scrapes() {
    let test = "victoria_metrics_scrapes";
    if let Some(victoria) = Database::start(test, "victoria-metrics", VICTORIA_METRICS, &[]) {
        victoria.check_numbers();
        victoria.check_buckets();
    }
}

#[test]
fn go_takes_a_profile_from_the_daemon() {
    let test = "go_takes_a_profile_from_the_daemon";
    let Some(go) = find("go") else { return skip(test, "no Go: `cargo xtask setup --tests`") };
    let directory = TempDir::new().unwrap();
    let mut command = Command::new(go);
    command.env("HOME", directory.path()).env("PPROF_TMPDIR", directory.path());
    command.args(["tool", "pprof", "-symbolize=none", "-raw", "-sample_index=samples"]);
    // Go itself adds `seconds` to what it asks for.
    command.args(["-seconds=1", &format!("http://{}/debug/pprof/profile?pid=7&hz=99", daemon())]);
    let text = output(&mut command);
    let (_, samples) = text.split_once("Samples:\n").unwrap_or_else(|| panic!("{text}"));
    let (samples, _) = samples.split_once("Locations\n").unwrap_or_else(|| panic!("{text}"));
    let counts = samples
        .lines()
        .filter_map(|line| line.split_once(':')?.0.split_whitespace().next()?.parse::<i64>().ok());
    let profile = pprof::read(PROFILE).unwrap();
    // Go leaves out what has no stack.
    let stacks =
        profile.samples.iter().filter(|sample| !profile.stacks[sample.stack.index()].locations.is_empty());
    assert_eq!(counts.sum::<i64>(), stacks.map(|sample| sample.values[0]).sum::<i64>(), "{text}");
}
