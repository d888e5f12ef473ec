//! Entry points of the probe `net`, and of the events `net-tx`, `net-rx` and `connect`.

use aya_ebpf::{
    macros::{btf_tracepoint, fexit, raw_tracepoint},
    programs::{BtfTracePointContext, FExitContext, RawTracePointContext},
};

use crate::{
    probe::{
        net,
        net_stacks::{
            NetStacks,
            connect::{self, Connect},
        },
        socket_packets::SocketPackets,
    },
    sample,
};

/// `sock_send_length(sk, ret, flags)`: the current task sent.
#[btf_tracepoint(function = "sock_send_length")]
pub fn net_sent(ctx: BtfTracePointContext) -> i32 {
    net::sent_length(&ctx);
    0
}

/// `sock_recv_length(sk, ret, flags)`: the current task received.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn net_received(ctx: BtfTracePointContext) -> i32 {
    net::received_length(&ctx);
    0
}

/// `tcp_rcv_space_adjust(sk)`: data was taken out of a receive queue.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn net_copied(ctx: BtfTracePointContext) -> i32 {
    net::copied(&ctx);
    0
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: to states that a task brings its socket to.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_state_by_task(ctx: BtfTracePointContext) -> i32 {
    net::changed_by_task(&ctx);
    0
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: to all others.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn net_state(ctx: BtfTracePointContext) -> i32 {
    net::changed(&ctx);
    0
}

/// `tcp_destroy_sock(sk)`.
#[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
pub fn net_destroyed(ctx: RawTracePointContext) -> i32 {
    net::destroyed(&ctx);
    0
}

/// `tcp_receive_reset(sk)`.
#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn net_reset_in(ctx: RawTracePointContext) -> i32 {
    net::reset_in(&ctx);
    0
}

/// `tcp_send_reset(sk, skb)`.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn net_reset_out(ctx: RawTracePointContext) -> i32 {
    net::reset_out(&ctx);
    0
}

/// `udp_fail_queue_rcv_skb(rc, sk)`.
#[raw_tracepoint(tracepoint = "udp_fail_queue_rcv_skb")]
pub fn net_dropped(ctx: RawTracePointContext) -> i32 {
    net::dropped(&ctx);
    0
}

/// `tcp_probe(sk, skb)`: a segment came in.
#[raw_tracepoint(tracepoint = "tcp_probe")]
pub fn net_probed(ctx: RawTracePointContext) -> i32 {
    net::probed(&ctx);
    0
}

/// `tcp_retransmit_skb(sk, skb)`: a sample of whose socket it is.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn sockpackets_sent_again(ctx: RawTracePointContext) -> i32 {
    sample::take::<SocketPackets<true>>(&ctx);
    0
}

/// `kfree_skb(skb, location)`: the same of a packet that is dropped.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn sockpackets_dropped(ctx: RawTracePointContext) -> i32 {
    sample::take::<SocketPackets<false>>(&ctx);
    0
}

/// Walks the user stack of such a sample, some frames of it.
#[raw_tracepoint(tracepoint = "kfree_skb")]
#[inline(always)]
pub fn sockpackets_walk(ctx: RawTracePointContext) -> i32 {
    sample::walk::<SocketPackets<false>>(&ctx);
    0
}

/// Counts such a sample when its user stack has been walked.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn sockpackets_count(ctx: RawTracePointContext) -> i32 {
    sample::walked::<SocketPackets<false>>(&ctx);
    0
}

/// `sock_send_length(sk, ret, flags)`: a sample of the current task.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn netstacks_sent(ctx: RawTracePointContext) -> i32 {
    sample::take::<NetStacks<true>>(&ctx);
    0
}

/// `sock_recv_length(sk, ret, flags)`: the same.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn netstacks_received(ctx: RawTracePointContext) -> i32 {
    sample::take::<NetStacks<false>>(&ctx);
    0
}

/// Walks the user stack of such a sample, some frames of it.
#[raw_tracepoint(tracepoint = "sock_send_length")]
#[inline(always)]
pub fn netstacks_walk(ctx: RawTracePointContext) -> i32 {
    sample::walk::<NetStacks<true>>(&ctx);
    0
}

/// Counts such a sample when its user stack has been walked.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn netstacks_count(ctx: RawTracePointContext) -> i32 {
    sample::walked::<NetStacks<true>>(&ctx);
    0
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: the current task asks for a connection.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn netstacks_connect(ctx: RawTracePointContext) -> i32 {
    sample::take::<Connect>(&ctx);
    0
}

/// Walks the user stack that does, some frames of it.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
#[inline(always)]
pub fn netstacks_connect_walk(ctx: RawTracePointContext) -> i32 {
    sample::walk::<Connect>(&ctx);
    0
}

/// Keeps that stack when it has been walked.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn netstacks_connect_keep(ctx: RawTracePointContext) -> i32 {
    sample::walked::<Connect>(&ctx);
    0
}

/// `inet_sock_set_state(sk, oldstate, newstate)`: a connection is there, or has failed.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn netstacks_connected(ctx: RawTracePointContext) -> i32 {
    connect::ended(&ctx);
    0
}

/// Exits of functions, for kernels without `sock_send_length` and `sock_recv_length`.
macro_rules! exits {
    ($($name:ident $function:literal $body:expr;)*) => {
        $(
            /// The function has sent or received.
            #[fexit(function = $function)]
            pub fn $name(ctx: FExitContext) -> i32 {
                $body(&ctx);
                0
            }
        )*
    };
}

exits! {
    net_inet_send "inet_sendmsg" net::sent_old::<3>;
    net_inet6_send "inet6_sendmsg" net::sent_old::<3>;
    net_unix_stream_send "unix_stream_sendmsg" net::sent_old::<3>;
    net_unix_dgram_send "unix_dgram_sendmsg" net::sent_old::<3>;
    net_inet_sendpage "inet_sendpage" net::sent_old::<5>;
    net_inet_receive "inet_recvmsg" net::received_old;
    net_inet6_receive "inet6_recvmsg" net::received_old;
    net_unix_stream_receive "unix_stream_recvmsg" net::received_old;
    net_unix_dgram_receive "unix_dgram_recvmsg" net::received_old;
}

/// Iterator over the open files of all tasks: sockets are found, and looked at.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn net_seed(ctx: &FileIteratorContext) -> i32 {
    // SAFETY: members of the kernel's context, each read in one load as the verifier wants it.
    let (task, file) =
        unsafe { ((&raw const ctx.task).read_volatile(), (&raw const ctx.file).read_volatile()) };
    if !task.is_null() && !file.is_null() {
        net::seed(task, file);
    }
    0
}

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c).
#[repr(C)]
pub struct FileIteratorContext {
    meta: *const u8,
    task: *const u8,
    fd: u64,
    /// Null at the end.
    file: *const u8,
}
