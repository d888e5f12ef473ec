//! Packets that are dropped or sent again: how many, why, whose, and by what.

use profiler::model::{Profile, StackEnd};
use profiler_tests::{
    expect,
    namespace::{self, Hosts},
    record::Record,
    skip::{self, skip},
    target::{Target, number},
    view::View,
    workload,
};

/// What stands at packets that come and go in interrupts.
const OUTSIDE: &str = ", outside of its process]";

/// Samples of a kind, by whether their label says that they were outside of their process: those that were not, those
/// that were.
fn by_place(view: &View<'_>, pid: u64) -> [u64; 2] {
    [false, true].map(|outside| {
        view.count(|entry| {
            u64::from(entry.thread.pid) == pid
                && entry.frames[0].function.name.ends_with(OUTSIDE) == outside
                && entry.frames[0].module.name() == "[net]"
        })
    })
}

/// Whether drops say which socket was to have the packet.
fn says_whose() -> bool {
    skip::is_since((6, 11))
}

/// Whether they say why.
fn says_why() -> bool {
    skip::is_since((5, 17))
}

fn record(options: &[&str], arguments: &[&str]) -> (Profile, serde_json::Value) {
    let record = Record::new().args(options).output("packets.pb.gz");
    let recorded = record.command(&workload::path("sockets"), arguments).run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    (profile, recorded.said())
}

/// Datagrams that come to a socket without room, which nobody has used yet: they are its process's.
#[test]
fn datagrams_without_room_are_dropped_by_their_socket() {
    if !says_whose() {
        return skip("datagrams_without_room_are_dropped_by_their_socket", "drops do not say whose they are");
    }
    // Another process's drops are none of the target's.
    let beside = Target::start(&workload::path("sockets"), &["drops", "50000"]);
    let (profile, said) = record(&["-e", "drops"], &["drops", "3000"]);
    beside.finish();
    let (numbers, bytes) = (View::of_type(&profile, "drops"), View::of_type(&profile, "drop-bytes"));
    let dropped = 3_000 - number(&said, "got");
    assert!(dropped > 2_000, "{said}");
    assert_eq!(by_place(&numbers, number(&said, "pid")), [0, dropped], "{}", numbers.list(|_| true));
    assert_eq!(numbers.total(), dropped, "{}", numbers.list(|_| true));
    assert_eq!(numbers.with(&format!("[dropped: SOCKET_RCVBUFF{OUTSIDE}")), dropped);
    assert_eq!(bytes.total(), dropped * 1_000);
    // The stack is the interrupt's, and nothing of what it hit.
    assert_eq!(numbers.count(|entry| entry.user_frames().next().is_some()), 0);
    assert_eq!(numbers.with("__sys_sendto"), 0, "{}", numbers.list(|_| true));
    assert!(numbers.with("udp_queue_rcv_one_skb") > 0, "{}", numbers.list(|_| true));
}

/// Messages that are thrown away by a call are the caller's, with its stack.
#[test]
fn messages_that_a_call_drops_have_its_stack() {
    let (profile, said) = record(&["-e", "drops"], &["unread", "1000"]);
    let (numbers, bytes) = (View::of_type(&profile, "drops"), View::of_type(&profile, "drop-bytes"));
    assert_eq!(by_place(&numbers, number(&said, "pid")), [1_000, 0], "{}", numbers.list(|_| true));
    assert_eq!((numbers.total(), bytes.total()), (1_000, 100_000));
    let whole = numbers.count(|entry| entry.end == StackEnd::Complete);
    assert_eq!(numbers.with("close_unread"), whole, "{}", numbers.list(|_| true));
    expect::at_least("tables are there", whole, 1_000, 50.0);
    let unnamed = numbers.with("[dropped]");
    assert_eq!(unnamed, if says_why() { 0 } else { 1_000 }, "{}", numbers.list(|_| true));
    assert_eq!(numbers.with("unix_release_sock"), 1_000, "{}", numbers.list(|_| true));
    // What this kernel does not tell is said.
    for (part, is_told) in [("why packets are dropped", says_why()), ("have no owner", says_whose())] {
        let is_noted = profile.meta.notes.iter().any(|note| note.contains(part));
        assert_ne!(is_noted, is_told, "{part}: {:?}", profile.meta.notes);
    }
}

/// On a link that loses frames: as many as the kernel says of the connection, and of the one who sends.
///
/// A timer that hits an agent of the kernel's is not seen where kernels run no programs for it (some of 1,000, see
/// `packets`), and nothing counts that for the recording: of three recordings one must have all.
#[test]
fn what_is_sent_again_is_the_senders() {
    if !namespace::can_be_joined() {
        return skip("what_is_sent_again_is_the_senders", "ip is not installed");
    }
    assert!((0..3).any(|_| all_that_is_sent_again()), "each of three recordings lacks some");
}

/// Whether a recording has all that the kernel says of a connection. What it has must be right.
fn all_that_is_sent_again() -> bool {
    let mut hosts = Hosts::new(10_000, 25);
    let (enter, arguments) = hosts.here.enter();
    let program = workload::path("sockets");
    let rounds = [program.to_str().unwrap(), "rounds", Hosts::THERE, Hosts::PORT, "200"].map(str::to_owned);
    let recorded = Record::new()
        .args(["-a", "-e", "retransmit"])
        .output("again.pb.gz")
        .command(enter.as_ref(), arguments.into_iter().chain(rounds))
        .run();
    let profile = recorded.succeeded();
    expect::nothing_lost(&profile);
    hosts.server_succeeded();
    let said = recorded.said();
    let (pid, again) = (number(&said, "pid"), number(&said, "retransmits"));
    let (numbers, bytes) =
        (View::of_type(&profile, "retransmit"), View::of_type(&profile, "retransmit-bytes"));
    assert!(again > 0, "{said}");
    let [own, outside] = by_place(&numbers, pid);
    assert!(own + outside <= again, "{said}{}", numbers.list(|_| true));
    // One of 64 bytes each is on its way at a time.
    assert_eq!(bytes.of_pid(pid), 64 * (own + outside));
    // A timer says when, in an interrupt; but an answer can also be found in the queue by the one that sends.
    assert!(outside > 0, "{}", numbers.list(|_| true));
    own + outside == again
}
