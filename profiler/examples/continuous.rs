use std::time::{Duration, Instant};
use profiler::{daemon::options::{self, Look}, session::{monotonic_ns, continuous::{Continuous, Jvms}}, symbolize::NameCache};
fn main() {
    let n: u32 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(3);
    let begun = monotonic_ns();
    let look = Look { frequency_hz: 19, min_block: Some(Duration::from_millis(1)), calls: true, network: true, jvms: true, unwind_memory: 32 << 20, log: false };
    let options = options::continuous(&look).unwrap();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut c = rt.block_on(async { Continuous::start(&options, begun) }).unwrap();
    println!("started {} ms", (monotonic_ns() - begun) / 1_000_000);
    let (mut cache, mut jvms) = (NameCache::default(), Jvms::default());
    for _ in 0..n {
        rt.block_on(async { tokio::select! { r = c.run() => { r.unwrap(); } () = tokio::time::sleep(Duration::from_secs(10)) => {} } });
        let t = Instant::now();
        let raw = rt.block_on(async { c.take() }).unwrap();
        let took = t.elapsed();
        let t = Instant::now();
        let w = raw.build(&mut cache, &mut jvms, 500);
        let built = t.elapsed();
        let sum = |m: &str| w.accounts.iter().flat_map(|a| &a.numbers).filter(|n| n.metric == m).map(|n| n.value).sum::<u64>();
        println!("window {} {} ms take {took:?} build {built:?} series {} numbers {} stacks {} samples {} cache {}", w.number, w.duration_ns / 1_000_000, w.accounts.len(), w.accounts.iter().map(|a| a.numbers.len()).sum::<usize>(), w.profile.stacks.len(), w.profile.samples.len(), cache.len());
        println!("  cpu {} switches {} syscalls {} host {:?}", sum("cpu"), sum("voluntary_switches") + sum("involuntary_switches"), sum("syscalls"), w.host.numbers.iter().map(|n| (n.metric, n.value)).collect::<Vec<_>>());
        println!("  cost {:?}", w.profile.cost);
        println!("  losses {:?} notes {:?}", w.profile.losses.counters.iter().filter(|(_, v)| **v != 0).collect::<Vec<_>>(), w.profile.meta.notes);
        for a in w.accounts.iter().take(6) { println!("   {:?} {:?}", a.series, a.numbers.iter().take(40).map(|n| format!("{}{}={}", n.metric, n.label, n.value)).collect::<Vec<_>>().join(" ")); }
    }
}
