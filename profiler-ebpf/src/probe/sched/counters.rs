//! Performance counters of each CPU, read at each switch: what they counted meanwhile is the leaving thread's.
//!
//! A counter counts all that runs on its CPU. It is pinned: it counts all the time, or it cannot be read.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_CURRENT_CPU, bpf_perf_event_value},
    btf_maps::PerfEventArray,
    helpers::generated::bpf_perf_event_read_value,
    macros::btf_map,
};
use profiler_common::{
    loss::Loss,
    probe::sched::{COUNTERS, Cpu, NOT_READ},
};

use crate::loss;

/// How many there are. Those behind are left out by the verifier.
#[unsafe(no_mangle)]
static SCHED_COUNTERS: Global<u32> = Global::new(0);

/// The events of each counter, by CPU.
#[btf_map]
static COUNTER_0: PerfEventArray = PerfEventArray::new();
#[btf_map]
static COUNTER_1: PerfEventArray = PerfEventArray::new();
#[btf_map]
static COUNTER_2: PerfEventArray = PerfEventArray::new();
#[btf_map]
static COUNTER_3: PerfEventArray = PerfEventArray::new();

/// What each counter of this CPU has counted since it came to `prev`; 0 if it was not seen to, and if the counter could not be
/// read now or then.
#[inline(always)]
pub fn advance(cpu: &mut Cpu, prev: u64) -> [u64; COUNTERS] {
    [
        one::<0>(&COUNTER_0, cpu, prev),
        one::<1>(&COUNTER_1, cpu, prev),
        one::<2>(&COUNTER_2, cpu, prev),
        one::<3>(&COUNTER_3, cpu, prev),
    ]
}

#[inline(always)]
fn one<const I: usize>(events: &PerfEventArray, cpu: &mut Cpu, prev: u64) -> u64 {
    if SCHED_COUNTERS.load() as usize <= I {
        return 0;
    }
    let now = read(events);
    let before = core::mem::replace(&mut cpu.counters_at[I], now);
    if cpu.since_ns == 0 || cpu.current != prev {
        return 0;
    }
    if now == NOT_READ || before == NOT_READ {
        loss::count(Loss::CountersNotRead);
        return 0;
    }
    now.wrapping_sub(before)
}

/// This CPU's counter as it is now.
#[inline(always)]
fn read(events: &PerfEventArray) -> u64 {
    let mut value = bpf_perf_event_value { counter: 0, enabled: 0, running: 0 };
    let map = (&raw const *events).cast_mut().cast();
    // SAFETY: the map is an array of perf events, and the buffer has the size that is told.
    let result = unsafe {
        bpf_perf_event_read_value(
            map,
            BPF_F_CURRENT_CPU,
            &raw mut value,
            size_of::<bpf_perf_event_value>() as u32,
        )
    };
    if result == 0 { value.counter } else { NOT_READ }
}
