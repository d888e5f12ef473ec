//! Profiles on demand: a recording of its own beside the daemon's, of the whole machine or of a process, for some seconds.

use std::{thread, time::Duration};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    control::{ProfileRequest, Reply},
    options::{self, Look},
};
use crate::{
    host::cpus,
    model::Profile,
    session::{RecordOptions, Recording, Stop, monotonic_ns},
    target::{Choice, Target},
};

/// Kernel memory for unwind tables, bytes.
const UNWIND_MEMORY: u64 = 32 << 20;

/// Samples per second and CPU if neither the request nor the daemon has any.
const FREQUENCY_HZ: u64 = 99;

/// Begins one. `usual_hz`: how often the daemon samples; `permit`: given back when the recording is over.
pub fn start(
    request: ProfileRequest,
    usual_hz: u64,
    permit: OwnedSemaphorePermit,
    mut reply: Reply<Profile>,
) {
    let usual_hz = if usual_hz == 0 { FREQUENCY_HZ } else { usual_hz };
    let frequency_hz = request.frequency_hz.unwrap_or(usual_hz);
    let record = move || {
        let profile = record(request, frequency_hz, &mut reply);
        // First, so that who asks again as soon as there is an answer is not refused.
        drop(permit);
        // Nobody waits for it any more: it was ended for that.
        _ = reply.send(profile);
    };
    // The reply is dropped with what could not be started, which tells who waits for it.
    if let Err(error) = thread::Builder::new().name("on-demand".to_owned()).spawn(record) {
        log::warn!("a profile on demand cannot be recorded: {error}");
    }
}

/// Records it, for as long as somebody waits for the reply.
fn record(request: ProfileRequest, frequency_hz: u64, reply: &mut Reply<Profile>) -> Result<Profile, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    // First: of a process that is not there, nothing is attached.
    let choice = match request.pid {
        Some(pid) => Choice::Processes { pids: vec![pid], children: false },
        None => Choice::All,
    };
    let target = Target::resolve(&choice).map_err(|error| words(&error))?;
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
    let options = RecordOptions {
        filter: target.filter,
        targets: target.pids,
        target_words: target.words,
        duration: Some(Duration::from_secs(request.seconds)),
        ..samples
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| words(&error))?
        .block_on(async {
            let mut recording = Recording::start(&options, &cpus::online(), monotonic_ns())?;
            recording.scan_existing(|pid| request.pid.is_none_or(|wanted| wanted == pid))?;
            let unwanted = async {
                reply.closed().await;
                Stop::Signal
            };
            let stop = recording.run(unwanted, |_| {}).await?;
            recording.finish(stop).map(|outcome| outcome.profile)
        })
        .map_err(|error: crate::session::SessionError| words(&error))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_process_that_is_not_there_is_no_empty_profile() {
        let (mut reply, _answer) = oneshot::channel();
        // Above the kernel's largest id.
        let request = ProfileRequest { seconds: 60, pid: Some(1 << 30), frequency_hz: None };
        let error = record(request, FREQUENCY_HZ, &mut reply).unwrap_err();
        assert!(error.contains("no process 1073741824") || error.contains("pid namespace"), "{error}");
    }
}
