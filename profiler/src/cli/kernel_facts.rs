//! What the kernel side is told of tasks off the CPU and of system calls, for events that are of them.

use std::path::Path;

use profiler_common::{
    probe::{
        syscall_stacks::{CallStackConfig, NUMBERS, Wanted},
        syscalls::COMPAT,
    },
    sched::{offsets::SchedOffsets, wait::WaitConfig},
};

use super::{
    args::RecordArgs,
    error::{Exit, Failure},
    near::near,
};
use crate::{
    host::{btf, syscalls::Abi},
    model::name,
    probe::{Chosen, Event, Part, net},
    session::SocketFacts,
};

/// Where the kernel keeps what tells of tasks and calls.
fn offsets(chosen: &Chosen, what: &str, btf_path: &Path) -> Result<SchedOffsets, Failure> {
    btf::sched_offsets(btf_path).map_err(|error| {
        let message = format!("-e {}: {what} is not known: {error}", chosen.name());
        Failure::new(Exit::Unsupported, message).mend("see `profiler doctor`, line `btf`")
    })
}

/// What is recorded of tasks off the CPU.
pub fn waits(
    args: &RecordArgs,
    events: &[Chosen],
    btf_path: &Path,
) -> Result<Option<(WaitConfig, SchedOffsets)>, Failure> {
    let Some(wait) = events.iter().find(|chosen| chosen.event.is_wait()) else { return Ok(None) };
    let asked = |event| u32::from(events.iter().any(|chosen| chosen.event == event));
    let config = WaitConfig {
        min_block_ns: args.min_block.map_or(0, |time| time.as_nanos() as u64),
        blocked: asked(Event::OffCpu),
        queued: asked(Event::RunQueue),
        wakers: u32::from(args.wakers),
        guess_short: 0,
    };
    Ok(Some((config, offsets(wait, "what tasks wait for", btf_path)?)))
}

/// What is recorded of system calls.
pub fn call_stacks(
    events: &[Chosen],
    btf_path: &Path,
) -> Result<Option<(CallStackConfig, SchedOffsets)>, Failure> {
    let Some(call) = events.iter().find(|chosen| chosen.event.is_call()) else { return Ok(None) };
    let wanted = |event| {
        let chosen = events.iter().find(|chosen| chosen.event == event);
        chosen.map_or(Wanted::NONE, |chosen| match &chosen.part {
            Part::Calls(names) => numbers(names),
            _ => Wanted::ALL,
        })
    };
    let config = CallStackConfig { counted: wanted(Event::Syscalls), timed: wanted(Event::SyscallTime) };
    Ok(Some((config, offsets(call, "which calls are of 32-bit programs", btf_path)?)))
}

/// What is recorded of sockets.
pub fn net(events: &[Chosen], btf_path: &Path) -> Result<Option<SocketFacts>, Failure> {
    let Some(chosen) = events.iter().find(|chosen| chosen.event.is_net()) else { return Ok(None) };
    let unsupported = |what: String| Failure::new(Exit::Unsupported, format!("-e {}: {what}", chosen.name()));
    let of_bytes = events.iter().any(|chosen| matches!(chosen.event, Event::NetTx | Event::NetRx));
    if of_bytes && btf::typedef_id(btf_path, "btf_trace_sock_send_length").is_err() {
        return Err(unsupported("this kernel has no tracepoint sock_send_length: it came with Linux 6.3".to_owned())
            .mend("`profiler net` counts the same bytes without stacks; -e syscalls:sendto,write,... has the stacks"));
    }
    let unknown = |error: btf::BtfError| {
        unsupported(format!("what tells of sockets is not known: {error}"))
            .mend("see `profiler doctor`, line `btf`")
    };
    let owned = events.iter().find(|chosen| chosen.event.has_owner());
    let owners = owned.map(|chosen| offsets(chosen, "whose sockets are", btf_path)).transpose()?;
    let of_drops = events.iter().any(|chosen| chosen.event == Event::Drops);
    Ok(Some(SocketFacts {
        offsets: btf::net_offsets(btf_path).map_err(unknown)?,
        owners: owners.map(|offsets| (net::room(), offsets)),
        drops: of_drops.then(|| btf::drops(btf_path)).transpose().map_err(unknown)?,
    }))
}

/// The calls of these names, of 64-bit programs and of 32-bit programs.
fn numbers(names: &[String]) -> Wanted {
    let mut wanted = Wanted::NONE;
    for number in 0..NUMBERS as u32 {
        for compat in [false, true] {
            let (abi, number) = Abi::of(number | if compat { COMPAT } else { 0 });
            let call = abi.call(number);
            if names.iter().any(|name| *name == call) {
                wanted.add(number, compat);
            }
        }
    }
    wanted
}

/// Checks that there is a call of that name.
pub fn check_call(event: &str, call: &str) -> Result<(), Failure> {
    if numbers(&[call.to_owned()]).is_any() {
        return Ok(());
    }
    let shown = name::clean(call.as_bytes());
    let message = format!("-e {event}:{shown}: this kernel has no system call of that name");
    let failure = Failure::new(Exit::Usage, message);
    let known: Vec<_> = (0..NUMBERS as u32).map(|number| Abi::of(number).0.call(number)).collect();
    let near = near(call, known.iter().map(|name| &**name).filter(|name| !name.starts_with("syscall_")));
    if near.is_empty() {
        return Err(failure.mend("the names are those of syscalls(2), such as openat; several: openat,read"));
    }
    Err(failure.mend(format!("near: {}", near.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_numbers_of_both_kinds() {
        let wanted = numbers(&["read".to_owned(), "futex".to_owned()]);
        let (native, compat): (u32, u32) = (
            wanted.native.iter().map(|word| word.count_ones()).sum(),
            wanted.compat.iter().map(|word| word.count_ones()).sum(),
        );
        assert_eq!((native, compat, wanted.all), (2, 2, 0));
        assert!(check_call("syscalls", "openat").is_ok());
        let error = check_call("syscalls", "opennat").unwrap_err().to_string();
        assert!(error.contains("opennat"), "{error}");
    }
}
