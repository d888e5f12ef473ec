//! The host's network: packets, bytes, drops and times in queues against what a program sends in namespaces of its own, and
//! what the kernel counts of their interfaces.

use std::process::{Command, Stdio};

use profiler_tests::{
    accounts::{Accounting, Accounts, number},
    binary, expect,
    target::{self, Target, said},
    workload,
};
use serde_json::Value;

/// Bytes of Ethernet's header, which loopback's own counters leave out.
const LINK_HEADER: u64 = 14;

/// Time after which the token bucket of the workload has room for the next datagram, ns, and 5 % for how rates are rounded.
const REFILL_NS: f64 = 4.2e6;

/// Datagrams of a run: an emulated machine sends fewer.
fn datagrams() -> u64 {
    if expect::is_emulated() { 800 } else { 8_000 }
}

/// Nothing was lost, whatever was counted.
fn check(accounts: &Accounts) {
    for counter in [
        "queued_packets_map_full",
        "packets_without_account",
        "drops_without_account",
        "queue_times_not_in_histograms",
    ] {
        assert_eq!(accounts.lost(counter), 0, "{counter}");
    }
    for row in accounts.rows().filter(|row| row["queued_p50_ns"].is_u64()) {
        let ordered = ["queued_p50_ns", "queued_p90_ns", "queued_p99_ns", "queued_max_ns"];
        let ordered: Vec<_> = ordered.iter().map(|key| number(row, key)).collect();
        assert!(ordered.is_sorted(), "{row}");
        assert!(number(row, "queued_ns") >= number(row, "queued_max_ns"), "{row}");
    }
}

/// The row of an interface in a namespace; `Null` if nothing happened on it.
fn interface(accounts: &Accounts, netns: u64, name: &str) -> Value {
    let mut found = accounts.rows().filter(|row| row["netns"] == netns && row["interface"] == name);
    let row = found.next().cloned().unwrap_or(Value::Null);
    assert!(found.next().is_none(), "two rows of {name}");
    row
}

/// The sum of a number in drops that a condition holds for.
fn drops(accounts: &Accounts, key: &str, condition: impl Fn(&Value) -> bool) -> u64 {
    let rows = accounts.0["drops"].as_array().expect("drops").iter();
    rows.filter(|row| condition(row)).map(|row| number(row, key)).sum()
}

/// Whether a drop is for that reason; on a kernel that says none, whether it is in one of these functions.
fn is(row: &Value, reason: &str, functions: &[&str]) -> bool {
    match row["reason"].as_str() {
        Some(found) => found == reason,
        None => {
            let location = row["location"].as_str().expect("a place");
            functions.iter().any(|function| location.starts_with(function))
        }
    }
}

/// The profiler, in a namespace that has only loopback, while the workload sends there; and what the workload says.
fn inside(n: u64) -> (Accounts, Value) {
    let program = workload::path("packets");
    let mut command = Command::new(&program);
    command.arg("inside").arg(binary::profiler()).args(["packets", "--json", "--"]).arg(&program);
    let output = command.args(["here", &n.to_string()]).stdin(Stdio::null()).output();
    let output = output.expect("the workload can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find(|line| line.starts_with("{\"schema\"")).expect("it writes its rows");
    let others: String =
        text.lines().filter(|other| *other != line).map(|line| format!("{line}\n")).collect();
    (Accounts(serde_json::from_str(line).expect("it writes JSON")), said(&others))
}

#[test]
fn loopback_and_its_drops_are_counted() {
    let (accounts, said) = inside(datagrams());
    check(&accounts);
    let rows: Vec<_> = accounts.rows().filter(|row| row["is_own_netns"] == true).collect();
    let [row] = rows[..] else { panic!("one interface in the namespace: {rows:?}") };
    assert_eq!((&row["interface"], number(row, "ifindex")), (&Value::from("lo"), 1), "{row}");
    let kernel = |key| number(&said["lo"], key);
    assert_eq!(number(row, "received"), kernel("rx_packets"), "{row} {said}");
    assert_eq!(number(row, "sent"), kernel("tx_packets"), "{row} {said}");
    let link = LINK_HEADER * kernel("rx_packets");
    assert_eq!(number(row, "received_bytes"), kernel("rx_bytes") + link, "{row} {said}");
    assert_eq!(number(row, "sent_bytes"), kernel("tx_bytes") + link, "{row} {said}");
    // Each is sent whole, at once: loopback has no queue.
    assert_eq!(number(row, "queued"), kernel("tx_packets"), "{row}");
    assert_eq!((number(row, "send_failed"), number(row, "send_busy")), (0, 0), "{row}");

    let kernel = |key| number(&accounts.0["counters"], key);
    let [to_nobody, overflowed] = ["to_nobody", "overflowed"].map(|key| target::number(&said, key));
    assert_eq!((kernel("udp6_no_port"), kernel("udp6_receive_buffer_errors")), (to_nobody, overflowed));
    let of_udp = |reason: &'static str, functions: &'static [&'static str]| {
        move |row: &Value| row["protocol"] == "IPv6" && is(row, reason, functions)
    };
    let no_socket = of_udp("NO_SOCKET", &["__udp6_lib_rcv"]);
    assert_eq!(drops(&accounts, "packets", no_socket), to_nobody, "{}", accounts.0["drops"]);
    let full = of_udp("SOCKET_RCVBUFF", &["udpv6_queue_rcv_one_skb", "__udpv6_queue_rcv_skb"]);
    assert_eq!(drops(&accounts, "packets", full), overflowed, "{}", accounts.0["drops"]);
    let unhandled = |row: &Value| row["protocol"] == "0x88b5";
    assert_eq!(drops(&accounts, "packets", unhandled), target::number(&said, "unhandled"));
    assert_eq!(drops(&accounts, "bytes", unhandled), 1_000 * target::number(&said, "unhandled"));
    let softirqs = &accounts.0["softirqs"];
    assert!(number(softirqs, "processed") >= number(row, "received"), "{softirqs}");
    assert!(number(softirqs, "receive_count") > 0, "{softirqs}");
    let duration = number(&accounts.0["meta"], "duration_ns") * number(&accounts.0["meta"], "cpus");
    assert!((1..duration).contains(&number(softirqs, "receive_ns")), "{softirqs}");
}

#[test]
fn a_pair_of_interfaces_has_the_packets_that_the_kernel_counts() {
    let n = datagrams();
    let mut workload = Target::ready(&workload::path("packets"), &["veth", &n.to_string()]);
    let accounting = Accounting::start(&["packets"]);
    workload.go();
    let said = said(&workload.text_until("done"));
    let (intervals, accounts) = accounting.stop();
    check(&accounts);
    let netns = |side: &str| target::number(&said, &format!("{side}_netns"));
    for side in ["left", "right"] {
        let row = interface(&accounts, netns(side), side);
        for (ours, kernels) in [
            ("received", "rx_packets"),
            ("received_bytes", "rx_bytes"),
            ("sent", "tx_packets"),
            ("sent_bytes", "tx_bytes"),
            ("queued", "tx_packets"),
        ] {
            assert_eq!(number(&row, ours), number(&said[side], kernels), "{side} {ours}: {row} {said}");
        }
        assert_eq!(row["is_own_netns"], false, "{row}");
        // Nothing is sent over it.
        assert_eq!(interface(&accounts, netns(side), "lo"), Value::Null);
        let of_interval = |interval: &Value| -> u64 {
            let rows = interval["rows"].as_array().expect("rows").iter();
            let of_side = rows.filter(|row| row["netns"] == netns(side) && row["interface"] == side);
            of_side.map(|row| number(row, "sent")).sum()
        };
        let parts: u64 = intervals.iter().map(of_interval).sum();
        // What came behind the last interval is in the whole run only.
        assert!(parts <= number(&row, "sent"), "{parts}: {row}");
    }
    let left = interface(&accounts, netns("left"), "left");
    assert_eq!((number(&left, "sent"), number(&left, "received")), (n, 0), "{left}");
    assert_eq!(number(&left, "sent_bytes"), n * target::number(&said, "on_wire"), "{left}");
}

#[test]
fn times_in_a_queue_are_those_that_a_token_bucket_makes() {
    let n = 400;
    let mut workload = Target::ready(&workload::path("packets"), &["queue", &n.to_string()]);
    let accounting = Accounting::start(&["packets", "--histogram"]);
    workload.go();
    let said = said(&workload.text_until("done"));
    let (_, accounts) = accounting.stop();
    check(&accounts);
    let says = |key: &str| target::number(&said, key);
    let row = interface(&accounts, says("netns"), "lo");
    let (passed, dropped) = (says("passed"), says("dropped"));
    assert!(passed >= n / 8 && dropped > 0 && passed + dropped == n, "{said}");
    // What the queue has no room for has no time, and is not sent. Each of the others leaves the queue in a soft interrupt of
    // its own, which hits any task: some kernels run no programs if it hits one of theirs.
    let (sent, hidden) = (number(&row, "sent"), accounts.lost("soft_interrupts_not_traced"));
    assert!((passed.saturating_sub(hidden)..=passed).contains(&sent), "{hidden} not traced: {row} {said}");
    assert_eq!(number(&row, "queued"), sent, "{row} {said}");
    let unseen = (passed - sent) as f64;
    // It was handed over after so many refills of the bucket, and before it was read.
    let between = |key, which, tolerance: f64, [below, above]: [f64; 2]| {
        let [least, most] = ["least", "most"].map(|bound| says(&format!("{which}{bound}_ns")) as f64);
        let least = least * (1.0 - tolerance) - unseen * below;
        let most = most * (1.0 + tolerance) + unseen * above;
        assert!((least..=most).contains(&(number(&row, key) as f64)), "{key}, {unseen} unseen: {row} {said}");
    };
    between("queued_ns", "", 0.0, [says("longest_most_ns") as f64, 0.0]);
    between("queued_max_ns", "longest_", 0.0, [REFILL_NS, 0.0]);
    // The middle of a bucket is within 3.2 % of all that is in it.
    between("queued_p50_ns", "median_", 0.032, [REFILL_NS, REFILL_NS]);
    let in_histogram: u64 = row["histogram"]
        .as_array()
        .expect("asked for")
        .iter()
        .map(|bucket| bucket[2].as_u64().expect("a number"))
        .sum();
    assert_eq!(in_histogram, sent, "{row}");
    let of_queue = |row: &Value| {
        row["reason"].as_str().is_some_and(|reason| reason.starts_with("QDISC"))
            || row["location"].as_str().is_some_and(|location| location.starts_with("__dev_queue_xmit"))
    };
    assert_eq!(drops(&accounts, "packets", of_queue), dropped, "{}", accounts.0["drops"]);
}
