//! Sockets: bytes, calls, connections and their ends against what programs do, and whose they are.

use std::collections::BTreeMap;

use profiler::model::Frame;
use profiler_tests::{
    accounts::{Accounting, Accounts, number},
    expect,
    namespace::{self, Hosts, Namespace},
    record::Record,
    skip::skip,
    target::Target,
    view::View,
    workload,
};
use serde_json::Value;

/// Connections: an emulated machine makes fewer.
fn connections(most: u64) -> u64 {
    if expect::is_emulated() { most / 10 } else { most }
}

/// Runs the workload under `profiler net`; what it says, besides.
fn run(by: &str, arguments: &[&str]) -> (Accounts, Value) {
    let program = workload::path("sockets");
    let all: Vec<_> =
        ["--by", by, "--", program.to_str().unwrap()].into_iter().chain(arguments.iter().copied()).collect();
    let (accounts, said) = Accounts::of_view_and_said("net", &all);
    (accounts, serde_json::from_str(&said).expect("it says JSON"))
}

/// Most runs of programs that may be left out of thousands of connections, which change their state while others do.
const MOST_MISSED: u64 = 8;

/// The same for a workload that takes so many connections. What packets do is told by programs in soft interrupts: this
/// machine's kernel runs none while an agent of its is the current task, and says nothing of it. An interrupted program is left
/// out as often as packets come in until it goes on, and that is said. Both come by chance, and not in three runs.
fn run_taking(by: &str, mode: &str, count: u64, most_missed: u64) -> (Accounts, Value) {
    let count_text = count.to_string();
    let mut ran = run(by, &[mode, &count_text]);
    for _ in 1..3 {
        let taken: u64 = ran.0.rows().map(|row| number(row, "accepts")).sum();
        if taken >= count && ran.0.lost("programs_missed") <= most_missed {
            break;
        }
        ran = run(by, &[mode, &count_text]);
    }
    ran
}

/// The same on another host.
fn run_on(host: &Namespace, by: &str, arguments: &[&str]) -> (Accounts, Value) {
    let (profiler, program) = (profiler_tests::binary::profiler(), workload::path("sockets"));
    let mut command = host.command(profiler.to_str().unwrap());
    command.args(["net", "--json", "--by", by, "--"]).arg(program).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let (said, accounts) = (lines.next().unwrap(), Accounts(lines.next().unwrap()));
    check(&accounts);
    (accounts, said)
}

/// Nothing was lost, but for what the kernel leaves out (`programs_missed`), which comes back: a packet that came in while
/// the same program told of another one. Of thousands of connections that can be some.
fn missed(accounts: &Accounts) -> u64 {
    for counter in [
        "calls_of_sockets_without_account",
        "listeners_map_full",
        "sockets_of_ended_merged",
        "targets_map_full",
    ] {
        assert_eq!(accounts.lost(counter), 0, "{counter}");
    }
    let missed = accounts.lost("programs_missed");
    assert!(missed <= MOST_MISSED, "{missed} runs of programs are missing");
    missed
}

/// Nothing was lost.
fn check(accounts: &Accounts) {
    assert_eq!(missed(accounts), 0, "programs_missed");
}

/// Numbers of connections, but for so many that were missed.
fn nearly<const N: usize>(row: &Value, names: [&str; N], expected: [u64; N], missed: u64) {
    let seen = numbers(row, names);
    let are = seen.iter().zip(expected).all(|(&seen, expected)| seen.abs_diff(expected) <= missed);
    assert!(are, "{names:?}: {seen:?}, expected {expected:?}, {missed} missed: {row}");
}

/// The row of a process and protocol.
fn row<'a>(accounts: &'a Accounts, pid: &Value, protocol: &str) -> &'a Value {
    let mut rows = accounts.rows().filter(|row| row["pid"] == *pid && row["protocol"] == protocol);
    let found = rows.next().unwrap_or_else(|| panic!("no row of {pid}, {protocol}: {}", accounts.0["rows"]));
    assert!(rows.next().is_none(), "{pid} has two rows of {protocol}");
    found
}

/// The numbers of a row, by name.
fn numbers<const N: usize>(row: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| number(row, name))
}

fn port(end: &Value) -> i64 {
    end.as_str().map_or(0, |end| end.rsplit_once(':').unwrap().1.parse().unwrap())
}

/// What a process and its child sent and received, each over each pair of ports.
#[test]
fn bytes_and_calls_are_those_of_the_programs() {
    let (accounts, said) = run("connection", &["traffic", if expect::is_emulated() { "4" } else { "64" }]);
    check(&accounts);
    type Sums = BTreeMap<(i64, String, i64, i64), [i64; 6]>;
    let (mut expected, mut seen) = (Sums::new(), Sums::new());
    for end in said["ends"].as_array().unwrap() {
        let int = |at: usize| end[at].as_i64().unwrap();
        let key = (int(0), end[1].as_str().unwrap().to_owned(), int(2), int(3));
        let sums = expected.entry(key).or_default();
        for (sum, at) in sums.iter_mut().zip(4..) {
            *sum = if int(at) < 0 { -1 } else { *sum + int(at) };
        }
    }
    let columns = ["tx_bytes", "rx_bytes", "tx_calls", "rx_calls", "tx_errors", "rx_errors"];
    for row in accounts.rows().filter(|row| row["state"] != "LISTEN") {
        let key = (
            row["pid"].as_i64().unwrap(),
            row["protocol"].as_str().unwrap().to_owned(),
            port(&row["local"]),
            port(&row["remote"]),
        );
        let known = expected.get(&key);
        let mut sums = columns.map(|column| number(row, column) as i64);
        if known.is_some_and(|known| known[2] < 0) {
            sums[2] = -1;
        }
        // Sockets that were made and not used are there too.
        if known.is_some() || sums != [0; 6] {
            assert!(seen.insert(key, sums).is_none(), "twice: {row}");
        }
    }
    assert_eq!(seen, expected);
}

/// The same summed up by process; and no other process's.
#[test]
fn processes_are_told_apart_and_others_are_not_counted() {
    let mut beside = Target::ready(&workload::path("sockets"), &["existing"]);
    let (accounts, said) = run("process", &["traffic", "1"]);
    check(&accounts);
    for (pid, peer) in [("pid", "child"), ("child", "pid")] {
        for protocol in ["tcp", "unix"] {
            let (own, other) = (row(&accounts, &said[pid], protocol), row(&accounts, &said[peer], protocol));
            assert_eq!(number(own, "tx_bytes"), number(other, "rx_bytes"), "{own} {other}");
            assert!(number(own, "tx_bytes") > 0);
        }
        assert_eq!(row(&accounts, &said[pid], "tcp")["comm"], "sockets");
    }
    let pids = [said["pid"].clone(), said["child"].clone()];
    assert!(accounts.rows().all(|row| pids.contains(&row["pid"])), "{}", accounts.0["rows"]);
    beside.go();
    beside.wait_until("done");
    beside.finish();
}

#[test]
fn short_connections_are_counted_on_both_sides() {
    let count = connections(5_000);
    let (accounts, said) = run_taking("process", "short", count, MOST_MISSED);
    let missed = missed(&accounts);
    let (asks, takes) = (row(&accounts, &said["pid"], "tcp"), row(&accounts, &said["child"], "tcp"));
    let bytes = ["tx_bytes", "rx_bytes", "tx_errors", "rx_errors"];
    assert_eq!(numbers(asks, bytes), [count / 2 * 100, count / 2 * 200, 0, 0], "{asks}");
    assert_eq!(numbers(takes, bytes), [count / 2 * 200, count / 2 * 100, 0, 0], "{takes}");
    // Not resets: a listening socket sends one now and then, to a last word that comes when the connection is gone.
    let names = ["connects", "accepts", "failed", "open"];
    nearly(asks, names, [count + 50, 0, 50, 0], missed);
    nearly(takes, names, [0, count, 0, 0], missed);
    let refused = asks["failures"]["ECONNREFUSED"].as_u64().unwrap_or(0);
    assert!(refused.abs_diff(50) <= missed, "{asks}");
    if missed == 0 {
        assert_eq!(asks["failures"], serde_json::json!({"ECONNREFUSED": 50}));
        assert_eq!(asks["broken"], serde_json::json!({}));
    }
    for row in [asks, takes] {
        assert!(number(row, "lifetime_ns") > 0, "{row}");
        // What the kernel counts of a socket: an answer to one that is just being closed can be one.
        assert!(number(row, "drops") <= count / 100, "{row}");
    }
    assert!(number(asks, "connect_ns") > 0 && number(asks, "connect_max_ns") >= number(asks, "connect_ns"));
    // The other side only answers.
    assert!(takes["connect_ns"].is_null());
}

#[test]
fn connections_have_their_ports_and_lifetimes() {
    let count = connections(200);
    let (accounts, said) = run_taking("connection", "short", count, 0);
    check(&accounts);
    let port_of_server = said["port"].as_i64().unwrap();
    let of = |pid: &Value| -> BTreeMap<(i64, i64), Value> {
        let rows = accounts.rows().filter(|row| row["pid"] == *pid && row["state"] == "CLOSED");
        rows.map(|row| ((port(&row["local"]), port(&row["remote"])), row.clone())).collect()
    };
    let (asks, takes) = (of(&said["pid"]), of(&said["child"]));
    let ended = asks.iter().filter(|((_, remote), _)| *remote == port_of_server);
    assert_eq!(ended.clone().count() as u64, count);
    for ((local, remote), row) in ended {
        let other = takes.get(&(*remote, *local)).unwrap_or_else(|| panic!("no other end of {row}"));
        assert_eq!([number(row, "connects"), number(other, "accepts")], [1, 1]);
        assert_eq!(number(row, "tx_bytes"), number(other, "rx_bytes"), "{row} {other}");
        // It is there when the other side has answered, and gone on both sides at about the same time.
        assert!(number(row, "lifetime_ns") > 0 && number(other, "lifetime_ns") > 0, "{row} {other}");
    }
}

#[test]
fn resets_are_on_their_side() {
    let count = connections(3_000);
    let (accounts, said) = run_taking("process", "resets", count, MOST_MISSED);
    let missed = missed(&accounts);
    let (asks, takes) = (row(&accounts, &said["pid"], "tcp"), row(&accounts, &said["child"], "tcp"));
    let calls = ["rx_errors", "tx_bytes", "rx_bytes"];
    assert_eq!(numbers(asks, calls), [0, 10 * count, count], "{asks}");
    assert_eq!(numbers(takes, calls), [count, count, 10 * count], "{takes}");
    let names = ["connects", "accepts", "resets_in"];
    nearly(asks, names, [count, 0, 0], missed);
    nearly(takes, names, [0, count, count], missed);
    nearly(takes, ["resets_out"], [0], missed);
    // The listening socket is of the one that asks too, and sends one now and then to a connection that is gone.
    assert!((count - missed..=count + count / 100).contains(&number(asks, "resets_out")), "{asks}");
    let reset = takes["broken"]["ECONNRESET"].as_u64().unwrap_or(0);
    assert!(reset.abs_diff(count) <= missed, "{takes}");
}

#[test]
fn connections_that_are_there_have_their_owners() {
    let mut target = Target::start(&workload::path("sockets"), &["existing"]);
    let said = target.says();
    target.wait_until("ready");
    let pids = format!("{},{}", said["pid"], said["child"]);
    let accounting = Accounting::start(&["net", "--by", "connection", "-p", &pids]);
    target.go();
    target.wait_until("done");
    let (intervals, accounts) = accounting.stop();
    target.finish();
    check(&accounts);
    let of = |pid: &str| row(&accounts, &said[pid], "tcp");
    let names = ["tx_bytes", "rx_bytes", "connects", "accepts", "open"];
    assert_eq!(numbers(of("pid"), names), [1_000_000, 1_000, 0, 0, 1], "{}", of("pid"));
    // What was sent before it was looked at and is only received now counts where it is received.
    assert_eq!(number(of("child"), "tx_bytes"), 1_000);
    assert!((1_000_000..=1_000_500).contains(&number(of("child"), "rx_bytes")), "{}", of("child"));
    assert_eq!(port(&of("pid")["remote"]), said["port"].as_i64().unwrap());
    assert_eq!(of("pid")["state"], "ESTABLISHED");
    assert!(of("pid")["lifetime_ns"].is_null());
    let summed: u64 = intervals
        .iter()
        .flat_map(|interval| interval["rows"].as_array().unwrap())
        .filter(|row| row["pid"] == said["pid"])
        .map(|row| number(row, "tx_bytes"))
        .sum();
    assert!(summed <= 1_000_000, "intervals have more than the whole: {summed}");
}

#[test]
fn connections_belong_to_the_workers_that_take_them() {
    let count = connections(400);
    let (accounts, said) = run_taking("process", "workers", count, 0);
    check(&accounts);
    let mut accepted = 0;
    for worker in said["workers"].as_array().unwrap() {
        let [pid, taken, bytes] = [0, 1, 2].map(|at| worker[at].as_u64().unwrap());
        if taken == 0 {
            continue;
        }
        let row = row(&accounts, &worker[0], "tcp");
        assert_eq!(numbers(row, ["accepts", "rx_bytes"]), [taken, bytes], "{pid}: {row}");
        accepted += taken;
    }
    assert_eq!(accepted, count);
    // The one that listens takes none.
    let of_listener = |row: &&Value| row["pid"] == said["child"] && row["protocol"] == "tcp";
    assert_eq!(accounts.rows().filter(of_listener).map(|row| number(row, "accepts")).sum::<u64>(), 0);
}

#[test]
fn packets_that_a_full_socket_drops_are_its_own() {
    const COUNT: u64 = 500;
    let (accounts, said) = run("connection", &["drops", &COUNT.to_string()]);
    check(&accounts);
    let got = number(&said, "got");
    assert!(0 < got && got < COUNT, "{said}");
    let udp: Vec<_> = accounts.rows().filter(|row| row["protocol"] == "udp").collect();
    let of = |name: &str| udp.iter().map(|row| number(row, name)).sum::<u64>();
    assert_eq!(
        [of("tx_bytes"), of("rx_bytes"), of("drops")],
        [1_000 * COUNT, 1_000 * got, COUNT - got],
        "{udp:?}"
    );
    let receiver = udp.iter().find(|row| number(row, "drops") != 0).expect("one drops");
    // The call that found nothing would have had to wait.
    assert_eq!(numbers(receiver, ["tx_bytes", "rx_calls", "rx_errors"]), [0, got + 1, 0], "{receiver}");
}

#[test]
fn what_has_no_room_is_counted_in_sum() {
    let count = 300;
    let program = workload::path("sockets");
    let all = ["--accounts", "64", "--", program.to_str().unwrap(), "many", &count.to_string()];
    let (accounts, said) = Accounts::of_view_and_said("net", &all);
    let said: Value = serde_json::from_str(&said).expect("it says JSON");
    assert!(accounts.lost("calls_of_sockets_without_account") > count);
    let tcp = || accounts.rows().filter(|row| row["protocol"] == "tcp");
    let other = tcp().find(|row| row["comm"] == "[other]").expect("there is a row of the rest");
    assert!(other["pid"].is_null() && number(other, "connects") > 200, "{other}");
    // Of the rest it is not known whose it is, but all of it is there.
    assert!(number(row(&accounts, &said["pid"], "tcp"), "connects") < 64);
    let sums = ["tx_bytes", "rx_bytes", "tx_calls", "rx_calls", "connects"]
        .map(|name| tcp().map(|row| number(row, name)).sum::<u64>());
    assert_eq!(sums, [11 * count, 11 * count, 2 * count, 2 * count + 1, count], "{}", accounts.0["rows"]);
}

/// More connections at once than there is room for: the rest is in one row, exactly, in as much memory as without it.
#[test]
fn fifty_thousand_connections_at_once() {
    let count = connections(50_000);
    let (accounts, _) = run("process", &["more", &count.to_string()]);
    let tcp = || accounts.rows().filter(|row| row["protocol"] == "tcp");
    let sums = ["connects", "accepts", "failed", "tx_bytes", "rx_bytes", "tx_calls"]
        .map(|name| tcp().map(|row| number(row, name)).sum::<u64>());
    assert_eq!(sums, [count, count, 0, 11 * count, 11 * count, 2 * count], "{}", accounts.0["rows"]);
    let rest: u64 = tcp().filter(|row| row["comm"] == "[other]").map(|row| number(row, "connects")).sum();
    // There is room for 16,384 ends.
    assert_eq!(rest > 0, 2 * count > 16_384, "{}", accounts.0["rows"]);
    assert_eq!(accounts.lost("calls_of_sockets_without_account") > 0, rest > 0);
    for (cost, most) in [("recording_peak_rss_bytes", 48 << 20), ("kernel_map_bytes", 16 << 20)] {
        assert!(number(&accounts.0["cost"], cost) < most, "{}", accounts.0["cost"]);
    }
}

/// What is sent and received by io_uring is as much the process's, and only the bytes of it.
#[test]
fn io_uring_sends_and_receives() {
    let (accounts, said) = run("process", &["uring", "1000"]);
    if let Some(error) = said["error"].as_u64() {
        return skip("io_uring_sends_and_receives", &format!("no io_uring: error {error}"));
    }
    check(&accounts);
    let (own, other) = (row(&accounts, &said["pid"], "tcp"), row(&accounts, &said["child"], "tcp"));
    let names = ["tx_bytes", "rx_bytes", "tx_calls", "tx_errors", "rx_errors", "connects", "accepts"];
    assert_eq!(numbers(own, names), [100_000, 50_000, 1_000, 0, 0, 1, 0], "{own}");
    assert_eq!(numbers(other, names), [50_000, 100_000, 1_000, 0, 0, 0, 1], "{other}");
    // It tries before it waits.
    assert!((1_000..=2_000).contains(&number(own, "rx_calls")), "{own}");
}

/// Two hosts and a slow link between them, on which some frames are lost.
#[test]
fn a_slow_link_shows_in_times_and_retransmits() {
    if !namespace::can_be_joined() {
        return skip("a_slow_link_shows_in_times_and_retransmits", "ip is not installed");
    }
    const DELAY_US: u64 = 10_000;
    let mut hosts = Hosts::new(DELAY_US, 25);
    let (accounts, said) = run_on(&hosts.here, "connection", &["rounds", Hosts::THERE, Hosts::PORT, "200"]);
    hosts.server_succeeded();
    let row = row(&accounts, &said["pid"], "tcp");
    assert_eq!(numbers(row, ["tx_bytes", "rx_bytes", "connects"]), [12_800, 12_800, 1]);
    // Some were lost, and sent again as often as the kernel says.
    assert!(number(&said, "retransmits") > 0, "{said}");
    assert_eq!(number(row, "retransmits"), number(&said, "retransmits"), "{row}");
    // There and back; never less, and what it takes to connect is no more than the program saw.
    let there_and_back = 2 * DELAY_US * 1_000;
    let [connect, min, p50, p99] = numbers(row, ["connect_ns", "rtt_min_ns", "rtt_p50_ns", "rtt_p99_ns"]);
    assert!(there_and_back <= connect && connect <= number(&said, "connect_ns"), "{row} {said}");
    assert!(there_and_back <= min && min <= p50 && p50 <= p99, "{row}");
    // The kernel's own last word, but for what the end of the connection adds: an eighth of a new time.
    let [last, said_last] = [number(row, "rtt_ns") as f64, number(&said, "srtt_us") as f64 * 1e3];
    assert!((last / said_last - 1.0).abs() < 0.2, "{row} {said}");
}

/// A host that does not answer is a reason too, after as long as it was waited for.
#[test]
fn a_host_that_does_not_answer_is_a_failure_by_time() {
    if !namespace::can_be_joined() {
        return skip("a_host_that_does_not_answer_is_a_failure_by_time", "ip is not installed");
    }
    let [here, there] = [(); 2].map(|()| Namespace::new());
    here.join("here", &there, "there");
    here.ip("addr add 10.99.0.1/24 dev here");
    // It has a place to send to, where nobody is.
    here.ip("neigh add 10.99.0.3 lladdr 02:00:00:00:00:03 dev here nud permanent");
    let (accounts, said) = run_on(&here, "connection", &["late", "10.99.0.3", "5000"]);
    let row = row(&accounts, &said["pid"], "tcp");
    assert_eq!(
        numbers(row, ["connects", "failed", "tx_bytes", "rx_bytes", "open"]),
        [1, 1, 0, 0, 0],
        "{row}"
    );
    assert_eq!(row["failures"], serde_json::json!({"ETIMEDOUT": 1}), "{row}");
    assert_eq!(row["remote"], "10.99.0.3:5000", "{row}");
    assert!(number(row, "retransmits") > 0 && row["connect_ns"].is_null(), "{row}");
}

/// What an interface carries is what programs sent, and headers.
#[test]
fn interfaces_carry_what_is_sent_and_headers() {
    if !namespace::can_be_joined() {
        return skip("interfaces_carry_what_is_sent_and_headers", "ip is not installed");
    }
    let mut hosts = Hosts::new(0, 0);
    let before = hosts.here.traffic("here");
    let (accounts, said) = run_on(&hosts.here, "connection", &["rounds", Hosts::THERE, Hosts::PORT, "1000"]);
    hosts.server_succeeded();
    let after = hosts.here.traffic("here");
    let row = row(&accounts, &said["pid"], "tcp");
    assert_eq!(numbers(row, ["tx_bytes", "rx_bytes", "retransmits"]), [64_000, 64_000, 0], "{row}");
    for (direction, bytes, packets) in [("sent", 0, 1), ("received", 2, 3)] {
        let (carried, packets) = (after[bytes] - before[bytes], after[packets] - before[packets]);
        // Ethernet 14, IPv4 20, TCP with times 32. A connection is made with 8 more; a few packets are of other protocols.
        let headers = (carried - 64_000).abs_diff(66 * packets);
        assert!(packets >= 1_000 && headers <= 20 * 30, "{direction}: {carried} bytes in {packets} packets");
    }
}

/// Bytes by stack: those of the table, from the functions that send and receive.
#[test]
fn bytes_have_the_stacks_that_move_them() {
    if !has_lengths() {
        return skip("bytes_have_the_stacks_that_move_them", "no tracepoint sock_send_length");
    }
    let program = workload::path("sockets");
    let recorded = Record::new()
        .args(["-e", "net-tx,net-rx"])
        .output("net.pb.gz")
        .command(&program, ["traffic", "1", "500"])
        .run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let said = recorded.said();
    let ends: Vec<&Value> = said["ends"].as_array().unwrap().iter().collect();
    for (event, bytes_at, kernel_function) in [("net-tx", 4, "__sys_sendto"), ("net-rx", 5, "__sys_recvfrom")]
    {
        let view = View::of_type(&profile, event);
        for pid in ["pid", "child"] {
            for protocol in ["tcp", "udp", "unix"] {
                let mine = ends.iter().filter(|end| end[0] == said[pid] && end[1] == protocol);
                let mut expected: u64 = mine.map(|end| end[bytes_at].as_u64().unwrap()).sum();
                // What was spliced was not received by a call.
                if (event, pid, protocol) == ("net-rx", "child", "tcp") {
                    expected -= 1 << 20;
                }
                let label = format!("[{protocol}]");
                let pid_of = said[pid].as_u64().unwrap();
                let seen = view.count(|entry| u64::from(entry.thread.pid) == pid_of && entry.has(&label));
                assert_eq!(seen, expected, "{event} of {pid}, {protocol}");
            }
        }
        // The last of them are in the functions that say what they are for, and most in the call that they are made by.
        for function in ["unix_end", "batches"] {
            assert!(view.with(function) > 0, "{event}: {function}{}", view.list(|_| true));
        }
        expect::at_least(kernel_function, view.with(kernel_function), view.total(), 40.0);
        // The first stacks of a program are walked before its tables are there.
        let whole = view.count(|entry| !entry.is_early());
        let in_main = view.count(|entry| !entry.is_early() && entry.has("main"));
        expect::at_least("main", in_main, whole, 99.9);
        // Nor has any a frame of the profiler's own.
        let own = |frame: &Frame<'_>| {
            frame.function.name.starts_with("bpf_") || frame.function.name.contains("_length")
        };
        assert_eq!(view.count(|entry| entry.frames.iter().any(own)), 0, "{}", view.list(|_| true));
    }
}

/// Connections by the function that asks for them, those that fail too.
#[test]
fn connections_have_the_stack_that_asks() {
    // Enough for most of them to come when the program's tables are there, however slow the machine is.
    let count = if expect::is_emulated() { 800 } else { 1_000 };
    let program = workload::path("sockets");
    let recorded = Record::new()
        .args(["-e", "connect"])
        .output("connect.pb.gz")
        .command(&program, ["short", &count.to_string()])
        .run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    let said = recorded.said();
    let (times, numbers) = (View::of_type(&profile, "connect"), View::of_type(&profile, "connects"));
    assert_eq!(numbers.of_pid(number(&said, "pid")), count + 50);
    // The one that takes them asks for none.
    assert_eq!(numbers.total(), count + 50, "{}", numbers.list(|_| true));
    assert_eq!((numbers.with("[connected]"), numbers.with("[failed]")), (count, 50));
    assert!(times.with("[connected]") > 0 && times.with("[failed]") > 0);
    let whole = numbers.count(|entry| !entry.is_early());
    let asks = |name: &str| numbers.count(|entry| !entry.is_early() && entry.has(name));
    assert_eq!(asks("connected"), asks("connections"), "{}", numbers.list(|_| true));
    expect::at_least("connected", asks("connected"), whole, 99.0);
    expect::at_least("tables are there", whole, numbers.total(), 50.0);
    // Kernel and user: what asked for it is the call.
    expect::at_least("__sys_connect", numbers.with("__sys_connect"), numbers.total(), 99.0);
}

/// Since Linux 6.3.
fn has_lengths() -> bool {
    profiler_tests::skip::is_since((6, 3))
}
