//! Profiles on demand: a recording of its own beside the daemon's, of the whole machine or of a process, for some seconds.

use std::{thread, time::Duration};

use profiler_common::filter::FilterConfig;

use super::{
    control::{ProfileRequest, Reply},
    options::{self, Look},
};
use crate::{
    host::cpus,
    model::Profile,
    session::{RecordOptions, Recording, Stop, monotonic_ns},
};

/// Kernel memory for unwind tables, bytes.
const UNWIND_MEMORY: u64 = 32 << 20;

/// Samples per second and CPU if neither the request nor the daemon has any.
const FREQUENCY_HZ: u64 = 99;

/// Begins one. `usual_hz`: how often the daemon samples.
pub fn start(request: ProfileRequest, usual_hz: u64, reply: Reply<Profile>) {
    let usual_hz = if usual_hz == 0 { FREQUENCY_HZ } else { usual_hz };
    let frequency_hz = request.frequency_hz.unwrap_or(usual_hz);
    let record = move || _ = reply.send(record(request, frequency_hz));
    // The reply is dropped with what could not be started, which tells who waits for it.
    if let Err(error) = thread::Builder::new().name("on-demand".to_owned()).spawn(record) {
        log::warn!("a profile on demand cannot be recorded: {error}");
    }
}

fn record(request: ProfileRequest, frequency_hz: u64) -> Result<Profile, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let look = Look {
        frequency_hz,
        offcpu: false,
        calls: false,
        network: false,
        jvms: false,
        unwind_memory: UNWIND_MEMORY,
        window: Duration::from_secs(request.seconds),
        log: false,
    };
    let samples = options::continuous(&look).map_err(|error| words(&error))?.samples;
    let samples = samples.ok_or("nothing is sampled at 0 Hz")?;
    let duration = Some(Duration::from_secs(request.seconds));
    let options = match request.pid {
        Some(pid) => RecordOptions {
            filter: FilterConfig { by_process: 1, ..FilterConfig::ALL },
            targets: vec![pid],
            target_words: format!("process {pid}"),
            duration,
            ..samples
        },
        None => RecordOptions { duration, ..samples },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| words(&error))?
        .block_on(async {
            let mut recording = Recording::start(&options, &cpus::online(), monotonic_ns())?;
            recording.scan_existing(|pid| request.pid.is_none_or(|wanted| wanted == pid))?;
            let stop = recording.run(std::future::pending::<Stop>(), |_| {}).await?;
            recording.finish(stop).map(|outcome| outcome.profile)
        })
        .map_err(|error: crate::session::SessionError| words(&error))
}
