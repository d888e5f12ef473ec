//! The server as clients see it: over real sockets, with a core and a store that the test makes.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::{
    daemon::{
        config::Listen,
        control::{Command, ProfileRequest},
        state::{Phase, Status},
    },
    render::{fixture, pprof},
    store::{self, tests::windows},
};

/// What a client reads.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Sends bytes and reads to the end.
fn raw(address: SocketAddr, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The server may answer and close before it has read everything.
    _ = stream.write_all(request);
    let mut bytes = Vec::new();
    _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Reply {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Reply { status, head, body: bytes[end..].to_vec() }
}

fn get(address: SocketAddr, target: &str, headers: &str) -> Reply {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    raw(address, request.as_bytes())
}

struct Server {
    token: Option<Token>,
    limits: Limits,
    /// Answers profiles; else they wait for ever.
    core: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self { token: None, limits: Limits::default(), core: true }
    }
}

impl Server {
    /// Runs a client against a server at a port of loopback, whose store has 3 windows.
    fn run<T: Send + 'static>(self, client: impl FnOnce(SocketAddr, Arc<State>) -> T + Send + 'static) -> T {
        let directory = tempfile::tempdir().unwrap();
        fill(directory.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (state, commands) = State::new(directory.path().to_owned(), Duration::from_secs(10), 10);
            let state = Arc::new(state);
            let listen = Listen::parse("127.0.0.1:0").unwrap();
            let listener = Listener::listen(&listen).await.unwrap().unwrap();
            let Listener::Tcp(tcp) = &listener else { panic!("it is TCP") };
            let address = tcp.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, Arc::clone(&state), self.token, self.limits));
            let core = tokio::spawn(core(commands, self.core));
            let result = tokio::task::spawn_blocking(move || client(address, state)).await.unwrap();
            server.abort();
            core.abort();
            result
        })
    }
}

async fn core(mut commands: mpsc::Receiver<Command>, answers: bool) {
    let mut waiting = Vec::new();
    while let Some(command) = commands.recv().await {
        let Command::Profile(request, reply) = command else { panic!("nobody asks for it here") };
        match request {
            _ if !answers => waiting.push(reply),
            ProfileRequest { seconds: 1, pid: Some(7), frequency_hz: Some(99) } => {
                reply.send(Ok(fixture::mixed())).unwrap();
            }
            _ => reply.send(Err("no such process".to_owned())).unwrap(),
        }
    }
}

fn fill(directory: &Path) {
    let limits = store::Limits { max_age: Duration::from_secs(1 << 32), max_bytes: 1 << 30 };
    let mut writer = store::Writer::open(directory, limits).unwrap();
    for window in windows::simple(3) {
        writer.append(&window).unwrap();
    }
}

fn token() -> Token {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "0123456789abcdef").unwrap();
    Token::read(file.path()).unwrap()
}

#[test]
fn the_description_lists_exactly_what_is_served() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    let served: BTreeSet<_> = ROUTES.iter().map(|route| route.path.to_owned()).collect();
    assert_eq!(described, served);
    for route in ROUTES {
        let operation = &document["paths"][route.path]["get"];
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let described: Vec<_> =
            parameters.iter().map(|parameter| parameter["name"].as_str().unwrap()).collect();
        assert_eq!(described, route.parameters, "{}", route.path);
        assert!(
            parameters.iter().all(|parameter| parameter["in"] == "query" && parameter["schema"].is_object())
        );
    }
    assert_eq!(
        document["components"]["schemas"]["Windows"]["properties"]["schema"]["const"],
        "profiler.windows/1"
    );
}

#[test]
fn each_route_is_there_and_takes_its_parameters_only() {
    Server::default().run(|address, _| {
        for route in ROUTES {
            let reply = get(address, &format!("{}?nonsense=1", route.path), "");
            assert_eq!(reply.status, 400, "{}: {}", route.path, reply.head);
            let message = reply.json()["error"].as_str().unwrap().to_owned();
            assert!(message.contains("no parameter `nonsense`"), "{message}");
            assert!(route.parameters.iter().all(|name| message.contains(name)), "{message}");
        }
        for (target, status) in
            [("/", 404), ("/metrics/", 404), ("/api/v2/windows", 404), ("/%2e%2e/etc/passwd", 404)]
        {
            assert_eq!(get(address, target, "").status, status, "{target}");
        }
        let reply =
            raw(address, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!((reply.status, reply.json()["error"].as_str().unwrap()), (405, "only GET is answered"));
    });
}

#[test]
fn metrics_in_the_format_that_is_asked_for() {
    Server::default().run(|address, state| {
        state.window(&windows::simple(1)[0], true);
        let text = get(address, "/metrics", "");
        assert!(
            text.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{}",
            text.head
        );
        assert!(text.text().contains("profiler_cpu_seconds_total{comm="), "{}", text.text());
        let open = get(address, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
        assert!(open.text().ends_with("# EOF\n") && open.head.contains("vary: accept"));
        let accept = format!("Accept: {}\r\n", crate::export::Format::Protobuf.content_type());
        let protobuf = get(address, "/metrics", &accept);
        assert!(
            protobuf.head.contains("content-type: application/vnd.google.protobuf;")
                && !protobuf.body.is_empty()
        );
    });
}

#[test]
fn health_and_readiness() {
    Server::default().run(|address, state| {
        assert_eq!(get(address, "/healthz", "").text(), "ok\n");
        let reply = get(address, "/readyz", "");
        assert_eq!((reply.status, reply.text()), (503, "{\"error\":\"starting\"}"));
        state.publish(Status { phase: Phase::Recording, ..Status::default() });
        state.window(&windows::simple(1)[0], true);
        assert_eq!(get(address, "/readyz", "").status, 200);
    });
}

#[test]
fn the_history_is_that_of_the_store() {
    Server::default().run(|address, _| {
        let made = windows::simple(3);
        let whole = "from=0&to=9000000000";
        let listed = get(address, &format!("/api/v1/windows?{whole}"), "").json();
        let starts: Vec<_> = listed["windows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w["start_unix_ns"].as_u64().unwrap())
            .collect();
        assert_eq!(starts, made.iter().map(|window| window.start_unix_ns).collect::<Vec<_>>());
        let series = get(address, &format!("/api/v1/series?{whole}"), "").json();
        let names: BTreeSet<_> = series["series"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["comm"].as_str().unwrap().to_owned())
            .collect();
        let expected: BTreeSet<_> = ["web", "db"].map(str::to_owned).into();
        assert_eq!(names, expected);
        let profile = get(address, &format!("/api/v1/profile?{whole}&format=pprof"), "");
        let read = pprof::read(&profile.body[..]).unwrap();
        let samples = |window: &crate::model::window::Window| window.profile.total(0);
        assert_eq!(read.total(0), made.iter().map(samples).sum::<i64>());
        let json = get(address, &format!("/api/v1/profile?{whole}"), "");
        assert_eq!(json.json()["schema"], "profiler.report/1");
        let folded = get(address, &format!("/api/v1/profile?{whole}&format=folded"), "");
        assert!(folded.text().lines().count() > 0 && folded.head.contains("content-type: text/plain"));
        assert!(get(address, &format!("/api/v1/profile?{whole}&format=svg"), "").text().contains("<svg"));
        let none = get(address, &format!("/api/v1/profile?{whole}&process=nosuch&format=folded"), "");
        assert_eq!((none.status, none.text()), (200, ""));
    });
}

#[test]
fn two_ranges_are_compared() {
    Server::default().run(|address, _| {
        let whole = "from=0&to=9000000000";
        let same = get(address, &format!("/api/v1/diff?{whole}&base_from=0&base_to=9000000000"), "").json();
        assert_eq!(same["schema"], "profiler.diff/1");
        assert_eq!(same["before"]["total"], same["after"]["total"]);
        assert!(same["after"]["total"].as_u64().unwrap() > 0);
        assert!(same["rows"].as_array().unwrap().iter().all(|row| row["self_before"] == row["self_after"]));
        let offcpu =
            get(address, &format!("/api/v1/diff?{whole}&base_from=0&base_to=9000000000&event=offcpu"), "")
                .json();
        assert_eq!((&offcpu["sample_type"], &offcpu["unit"]), (&"offcpu".into(), &"nanoseconds".into()));
        let svg =
            get(address, &format!("/api/v1/diff?{whole}&base_from=0&base_to=9000000000&format=svg"), "");
        assert!(svg.text().contains("<svg"));
        // The first window alone as the base: what it has is a part of what all have.
        let first = windows::START / windows::SECOND;
        let base = format!("base_from={first}&base_to={}", first + 9);
        let parts = get(address, &format!("/api/v1/diff?{whole}&{base}&format=folded"), "");
        let numbers: Vec<(u64, u64)> = parts
            .text()
            .lines()
            .map(|line| {
                let mut words = line.rsplit(' ').map(|word| word.parse().unwrap());
                let new = words.next().unwrap();
                (words.next().unwrap(), new)
            })
            .collect();
        assert!(
            numbers.iter().all(|(base, new)| base <= new) && numbers.iter().any(|(base, new)| base < new)
        );
        assert_eq!(get(address, &format!("/api/v1/diff?{whole}&base_from=0&base_to=1"), "").status, 404);
        assert_eq!(get(address, &format!("/api/v1/diff?{whole}"), "").status, 400);
    });
}

#[test]
fn parameters_reach_neither_sql_nor_files_nor_headers() {
    Server::default().run(|address, _| {
        for (target, part) in [
            ("/api/v1/profile?event=x%27;DROP%20TABLE%20windows", "x';DROP TABLE windows"),
            ("/api/v1/profile?format=../../etc/passwd", "must be one of json, folded, svg, pprof"),
            ("/api/v1/profile?format=text", "must be one of"),
            ("/api/v1/windows?from=1%0d%0aX-Evil:1", "a time like 2026"),
            ("/debug/pprof/profile?seconds=61", "from 1 to 60"),
            ("/debug/pprof/profile?seconds=1&hz=0", "from 1 to 10000"),
        ] {
            let reply = get(address, target, "");
            assert_eq!(reply.status, 400, "{target}: {}", reply.text());
            assert!(reply.text().contains(part), "{}", reply.text());
            assert!(!reply.head.to_lowercase().contains("x-evil"));
        }
        let listed = get(address, "/api/v1/windows?from=0&to=9000000000", "").json();
        assert_eq!(listed["windows"].as_array().unwrap().len(), 3);
    });
}

#[test]
fn a_profile_on_demand_is_the_cores() {
    Server::default().run(|address, _| {
        let reply = get(address, "/debug/pprof/profile?seconds=1&pid=7&hz=99", "");
        assert_eq!(reply.status, 200, "{}", reply.head);
        assert_eq!(pprof::read(&reply.body[..]).unwrap(), fixture::mixed());
        let refused = get(address, "/debug/pprof/profile?seconds=1&pid=8", "");
        assert_eq!((refused.status, refused.text()), (503, "{\"error\":\"no such process\"}"));
    });
}

#[test]
fn there_is_one_profile_on_demand_at_a_time() {
    Server { core: false, ..Server::default() }.run(|address, _| {
        let mut first = TcpStream::connect(address).unwrap();
        first.write_all(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let is_refused = || {
            let mut next = TcpStream::connect(address).unwrap();
            next.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            next.write_all(b"GET /debug/pprof/profile?seconds=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut bytes = Vec::new();
            next.read_to_end(&mut bytes).is_ok() && parse(&bytes).text().contains("one at a time")
        };
        // Refused as soon as the first one has arrived; before, this one is the first.
        assert!((0..1000).any(|_| is_refused()));
        // It is still being recorded when its client has gone.
        drop(first);
        assert!((0..20).all(|_| is_refused()));
    });
}

#[test]
fn without_the_token_nothing_is_told() {
    Server { token: Some(token()), ..Server::default() }.run(|address, _| {
        for route in ROUTES {
            for header in ["", "Authorization: Bearer 0123456789abcdee\r\n", "Authorization: Basic eDp5\r\n"]
            {
                let reply = get(address, route.path, header);
                assert_eq!(reply.status, 401, "{}", route.path);
                assert!(reply.head.contains("www-authenticate: Bearer"), "{}", reply.head);
            }
        }
        assert_eq!(get(address, "/nothing", "").status, 401, "not even what there is not");
        let right = "Authorization: Bearer 0123456789abcdef\r\n";
        assert_eq!(get(address, "/healthz", right).status, 200);
        assert_eq!(get(address, "/healthz", &format!("{right}{right}")).status, 401, "twice");
    });
}

#[test]
fn beyond_loopback_a_token_is_needed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (state, _commands) = State::new("/".into(), Duration::from_secs(10), 10);
        let listener = Listener::listen(&Listen::parse("0.0.0.0:0").unwrap()).await.unwrap().unwrap();
        let error = serve(listener, Arc::new(state), None, Limits::default()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn other_hosts_names_are_not_answered_to() {
    Server::default().run(|address, _| {
        for (host, status) in
            [("localhost", 200), ("[::1]:1", 200), ("evil.example", 421), ("localhost.evil.example", 421)]
        {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(raw(address, request.as_bytes()).status, status, "{host}");
        }
        assert_eq!(raw(address, b"GET /healthz HTTP/1.1\r\n\r\n").status, 421);
    });
}

#[test]
fn heads_are_bounded() {
    Server::default().run(|address, _| {
        let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
        assert!([0, 414, 431].contains(&raw(address, long.as_bytes()).status));
        let many: String = (0..1000).map(|i| format!("X-{i}: 1\r\n")).collect();
        assert!([0, 431].contains(&get(address, "/healthz", &many).status));
        assert!([0, 400].contains(&raw(address, b"\x16\x03\x01\x00\xff garbage\r\n\r\n").status));
        assert_eq!(get(address, "/healthz", "").status, 200);
    });
}

#[test]
fn slow_clients_are_left_and_one_too_many_is_closed() {
    let limits = Limits { connections: 4, head: Duration::from_millis(300), ..Limits::default() };
    Server { limits, ..Server::default() }.run(|address, _| {
        let read_end = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes)
        };
        // Some send nothing at all, some not enough.
        let mut slow: Vec<_> = ["", "G", "GET /healthz HTTP/1.1\r\nHost: loc", "GET / HTTP/1.1\r\n"]
            .map(|part| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(part.as_bytes()).unwrap();
                stream
            })
            .into();
        for stream in &mut slow {
            // Ended by the server, without an answer to a request that was never whole.
            match read_end(stream) {
                Ok(bytes) => assert!(!bytes.starts_with(b"HTTP/1.1 200")),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
        assert_eq!(get(address, "/healthz", "").status, 200, "there is room again");
    });
}

#[test]
fn who_takes_nothing_is_left() {
    let limits = Limits { connections: 1, stall: Duration::from_millis(200), ..Limits::default() };
    Server { limits, ..Server::default() }.run(|address, state| {
        // A page of many megabytes, which no socket's queue takes at once.
        let mut window = windows::simple(1).remove(0);
        let account = window.accounts[0].clone();
        window.accounts = (0..3000)
            .map(|i| {
                let mut account = account.clone();
                account.series.comm = format!("{i}{}", "x".repeat(4000));
                account
            })
            .collect();
        state.registry.set_most_series(3000);
        state.window(&window, true);
        let mut slow = TcpStream::connect(address).unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // It holds the only connection, until the server has had enough of it.
        let answered = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            get(address, "/healthz", "").status == 200
        });
        assert!(answered);
    });
}

#[test]
fn a_unix_socket_serves_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("http.sock");
        let listen = Listen::parse(&format!("unix:{}", path.display())).unwrap();
        let listener = Listener::listen(&listen).await.unwrap().unwrap();
        let (state, _commands) = State::new(directory.path().to_owned(), Duration::from_secs(10), 10);
        let server = tokio::spawn(serve(listener, Arc::new(state), None, Limits::default()));
        let reply = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            // Its name is of no matter: no browser gets here.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: profiler\r\n\r\n").unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            parse(&bytes)
        });
        assert_eq!(reply.await.unwrap().text(), "ok\n");
        server.abort();
    });
}
