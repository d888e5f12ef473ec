//! The load that profilers are compared under: this program again, with two computing threads and 20 program starts a
//! second. It counts the work it gets done, so that what a profiler takes from it shows.

use std::{
    env,
    hint::black_box,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::measure::thread_cpu_seconds;
use crate::process::Failure;

/// Threads that compute.
const THREADS: usize = 2;
/// Pause between two program starts.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the load in a process of its own; it ends by itself.
pub fn start(seconds: u32) -> Result<Child, Failure> {
    let program = env::current_exe().map_err(|e| Failure::new(format!("this program's own path: {e}")))?;
    Command::new(program)
        .args(["bench-load", &seconds.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| Failure::new(format!("cannot start the load: {e}")))
}

/// Waits for the load's end: its units of work per second of CPU time.
pub fn finish(load: Child) -> Result<f64, Failure> {
    let output =
        load.wait_with_output().map_err(|e| Failure::new(format!("cannot wait for the load: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| Failure::new(format!("the load printed `{}`", text.trim())))
}

/// The load itself: runs for `seconds` and prints units of work per CPU second.
pub fn load(seconds: &str) -> Result<(), Failure> {
    let seconds: u64 = seconds.parse().map_err(|_| Failure::usage("bench-load needs a number of seconds"))?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..THREADS).map(|seed| thread::spawn(move || compute(seed as u64, end))).collect();
    while Instant::now() < end {
        // That programs start is what matters; what becomes of them is not.
        _ = Command::new("true").status();
        thread::sleep(START_INTERVAL);
    }
    let mut rate = 0.0;
    for worker in workers {
        rate += worker.join().map_err(|_| Failure::new("a thread of the load has panicked"))?;
    }
    println!("{rate}");
    Ok(())
}

fn compute(seed: u64, end: Instant) -> f64 {
    let begin = thread_cpu_seconds();
    let (mut state, mut units) = (seed, 0.0);
    while Instant::now() < end {
        for _ in 0..100_000 {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
        units += 1.0;
    }
    units / (thread_cpu_seconds() - begin)
}
