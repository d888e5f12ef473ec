//! Entry points of the programs at hooks that the user names: for each of the places that such an event can have among them, a
//! program that takes the sample; for each kind, one that walks on and one that counts.
//!
//! What they return decides whether others who watch the same hook by way of perf are told (`perf_trace_run_bpf_submit`,
//! kernel/events/core.c; `kprobe_perf_func`, kernel/trace/trace_kprobe.c): 1, they are.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint, tracepoint, uprobe},
    programs::{ProbeContext, RawTracePointContext, TracePointContext},
};

use crate::{
    probe::{
        between::{self, Between},
        kprobe::Kprobe,
        tracepoint::Tracepoint,
        uprobe::Uprobe,
    },
    sample,
};

/// The programs of one kind.
macro_rules! programs {
    ($kind:ident, $context:ty, $probe:ident, [$($take:ident $place:literal),*], $walk:ident, $count:ident) => {
        $(
            /// A task comes to the hook of that place.
            #[$kind]
            pub fn $take(ctx: $context) -> u32 {
                sample::take::<$probe<$place>>(&ctx);
                1
            }
        )*

        /// Walks the user stack of such a hit, some frames of it.
        #[$kind]
        pub fn $walk(ctx: $context) -> u32 {
            sample::walk::<$probe<0>>(&ctx);
            1
        }

        /// Counts such a hit when the user stack has been walked.
        #[$kind]
        pub fn $count(ctx: $context) -> u32 {
            sample::walked::<$probe<0>>(&ctx);
            1
        }
    };
}

programs!(
    tracepoint,
    TracePointContext,
    Tracepoint,
    [tracepoint_0 0, tracepoint_1 1, tracepoint_2 2, tracepoint_3 3],
    tracepoint_walk,
    tracepoint_count
);

programs!(
    uprobe,
    ProbeContext,
    Uprobe,
    [uprobe_0 0, uprobe_1 1, uprobe_2 2, uprobe_3 3],
    uprobe_walk,
    uprobe_count
);

programs!(
    uprobe,
    ProbeContext,
    Between,
    [between_0 0, between_1 1, between_2 2, between_3 3],
    between_walk,
    between_begun
);

programs!(
    kprobe,
    ProbeContext,
    Kprobe,
    [kprobe_0 0, kprobe_1 1, kprobe_2 2, kprobe_3 3],
    kprobe_walk,
    kprobe_count
);

/// The programs at the ends of spans.
macro_rules! ends {
    ($($end:ident $place:literal),*) => {
        $(
            /// A task comes to the end of a span of that place.
            #[uprobe]
            pub fn $end(ctx: ProbeContext) -> u32 {
                between::ended::<$place>(&ctx);
                1
            }
        )*
    };
}

ends!(between_end_0 0, between_end_1 1, between_end_2 2, between_end_3 3);

/// `sched_process_exit(task)`, `sched_process_exec(task, old_pid, bprm)`: the ends of a thread's spans will not be come to.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn between_left(_ctx: RawTracePointContext) -> i32 {
    between::left();
    0
}
