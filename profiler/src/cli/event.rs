//! What `record -e` and `-F` ask for, and which other options fit it.

use super::{
    args::{RecordArgs, Sampler},
    error::{Exit, Failure},
    java_events,
    kernel_facts::check_call,
    kprobe, tracepoint, uprobe, usdt,
};
use crate::{
    host::limits::Limits,
    model::name,
    probe::{
        self, Chosen, Event, PROBES, Part, between, java, kprobe as kernel_code,
        tracepoint::PREFIX,
        uprobe::{MARKER_PREFIX, PREFIXES},
    },
    session::FREQUENCY_HZ,
};

/// Samples per second and CPU if nothing else is said: no multiple of common timers' rates.
const DEFAULT_FREQUENCY_HZ: u64 = 99;

/// The events, each once, in the order that they were named, and samples per second and CPU (0 if no timer makes them).
pub fn resolve(args: &RecordArgs) -> Result<(Vec<Chosen>, u64), Failure> {
    let events = events(&args.event, &args.pid)?;
    let timed = events.iter().any(|chosen| chosen.event.is_timed());
    let untimed = events.iter().find(|chosen| !chosen.event.is_timed());
    let refused = |option: &str, chosen: &Chosen, why: &str| {
        let message = format!("{option} does not go with -e {}: {why}", chosen.name());
        Err(Failure::new(Exit::Usage, message).mend(format!("leave {option} out, or record -e cpu")))
    };
    if let Some(chosen) = untimed.filter(|_| !timed) {
        let options = [
            ("-F", args.frequency.is_some()),
            ("--sampler", args.sampler != Sampler::Auto),
            ("--idle", args.idle),
        ];
        if let Some((option, _)) = options.into_iter().find(|(_, given)| *given) {
            return refused(option, chosen, "no timer makes its samples");
        }
    }
    for chosen in &events {
        let modes = [
            ("--user-only", args.user_only, chosen.event.never_in_user_mode()),
            ("--kernel-only", args.kernel_only, chosen.event.never_in_kernel()),
        ];
        if let Some((option, why)) =
            modes.into_iter().find_map(|(o, given, why)| Some((o, why.filter(|_| given)?)))
        {
            return refused(option, chosen, why);
        }
    }
    if args.sampler == Sampler::Cycles && events.len() > 1 {
        let message =
            "--sampler cycles does not go with several events: its interrupts hit the others' programs";
        return Err(
            Failure::new(Exit::Usage, message).mend("leave it out: a timer makes the samples of cpu then")
        );
    }
    if args.min_block.is_some() && !events.iter().any(|chosen| chosen.event == Event::OffCpu) {
        let message = "--min-block is about times that a task is blocked, which nobody records";
        return Err(Failure::new(Exit::Usage, message).mend("record them: -e offcpu"));
    }
    if args.wakers && !events.iter().any(|chosen| chosen.event == Event::OffCpu) {
        let message = "--wakers is about the ends of times that a task is blocked, which nobody records";
        return Err(Failure::new(Exit::Usage, message).mend("record them: -e offcpu"));
    }
    if !timed {
        return Ok((events, 0));
    }
    Ok((events, frequency(args.frequency)?))
}

/// Samples per second and CPU: what is asked for, if it can be.
pub fn frequency(asked: Option<u64>) -> Result<u64, Failure> {
    let hz = asked.unwrap_or(DEFAULT_FREQUENCY_HZ);
    check_frequency(hz)?;
    Ok(hz)
}

/// The events that one `-e` names: between commas, but for those inside of a filter (`tracepoint:C:N/.../`).
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let filter = if rest.starts_with("tracepoint:") { filter(rest) } else { 0..0 };
        let end = rest
            .char_indices()
            .find_map(|(at, c)| (c == ',' && !filter.contains(&at)).then_some(at))
            .unwrap_or(rest.len());
        words.push(&rest[..end]);
        match rest.get(end + 1..) {
            Some(behind) => rest = behind,
            None => return words,
        }
    }
}

/// Where the filter is of the tracepoint that a text begins with: nowhere, if a comma comes first.
fn filter(text: &str) -> std::ops::Range<usize> {
    match text.find(['/', ',']) {
        Some(begin) if text[begin..].starts_with('/') => {
            begin..text[begin + 1..].find('/').map_or(text.len(), |len| begin + 1 + len)
        }
        _ => 0..0,
    }
}

/// The events. `processes`: whose files they are about, the first one's unless more is said.
fn events(texts: &[String], processes: &[u32]) -> Result<Vec<Chosen>, Failure> {
    let known = || PROBES.iter().map(|probe| probe.name).collect::<Vec<_>>().join(", ");
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut hooks = 0;
    for text in texts {
        // The event of some calls that was named last: what is no event behind it is one more call.
        let mut of_calls: Option<usize> = None;
        for name in split(text) {
            if let Some(at) = of_calls
                && probe::find(name).is_none()
                && !name.contains(':')
            {
                add_call(&mut chosen[at], name)?;
                continue;
            }
            of_calls = None;
            if let Some((event, call)) = name.split_once(':')
                && let Some(probe) = probe::find(event)
                && probe.event.is_call()
            {
                let at = choose(&mut chosen, Chosen { event: probe.event, part: Part::Calls(Vec::new()) });
                add_call(&mut chosen[at], call)?;
                of_calls = Some(at);
                continue;
            }
            if let Some(new) = hook(name, processes, hooks)? {
                if !chosen.iter().any(|known| known.part == new.part) {
                    chosen.push(new);
                    hooks += 1;
                }
                continue;
            }
            let Some(probe) = probe::find(name) else {
                let message = format!("-e {}: no such event", name::clean(name.as_bytes()));
                return Err(Failure::new(Exit::Usage, message).mend(format!("events: {}", known())));
            };
            // All of an event has all of its parts.
            let at = choose(&mut chosen, Chosen::whole(probe.event));
            chosen[at].part = Part::Whole;
        }
    }
    if chosen.is_empty() {
        return Err(Failure::new(Exit::Usage, "-e: no event given").mend(format!("events: {}", known())));
    }
    Ok(chosen)
}

/// The place of an event among those that are chosen, at the end if it was not among them.
fn choose(chosen: &mut Vec<Chosen>, new: Chosen) -> usize {
    chosen.iter().position(|known| known.event == new.event).unwrap_or_else(|| {
        chosen.push(new);
        chosen.len() - 1
    })
}

/// Adds a call to those that are recorded of an event; all of them have it already.
fn add_call(chosen: &mut Chosen, call: &str) -> Result<(), Failure> {
    check_call(chosen.event.spec().name, call)?;
    if let Part::Calls(calls) = &mut chosen.part
        && !calls.iter().any(|known| known == call)
    {
        calls.push(call.to_owned());
    }
    Ok(())
}

/// The event that is named by its hook; `None` if it is named otherwise. `hooks`: how many were before.
fn hook(name: &str, processes: &[u32], hooks: usize) -> Result<Option<Chosen>, Failure> {
    let process = processes.first().copied();
    if let Some(rest) = name.strip_prefix(PREFIX) {
        return tracepoint::resolve(rest, hooks).map(Some);
    }
    if let Some(rest) = name.strip_prefix(MARKER_PREFIX) {
        return usdt::resolve(rest, process, hooks).map(Some);
    }
    if let Some(rest) = name.strip_prefix(between::PREFIX) {
        return uprobe::resolve_time(rest, process, hooks).map(Some);
    }
    if name.starts_with(java::PREFIX) {
        return java_events::resolve(name, processes, hooks).map(Some);
    }
    let behind = |prefixes: [(&'static str, bool); 2]| {
        prefixes.into_iter().find_map(|prefix| Some((prefix, name.strip_prefix(prefix.0)?)))
    };
    if let Some((prefix, rest)) = behind(kernel_code::PREFIXES) {
        return kprobe::resolve(prefix, rest, hooks).map(Some);
    }
    let user_code = behind(PREFIXES);
    user_code.map(|(prefix, rest)| uprobe::resolve(prefix, rest, process, hooks)).transpose()
}

fn check_frequency(hz: u64) -> Result<(), Failure> {
    if !FREQUENCY_HZ.contains(&hz) {
        let (low, high) = (FREQUENCY_HZ.start(), FREQUENCY_HZ.end());
        let message = format!("-F {hz}: the sampling frequency must be between {low} and {high} Hz");
        return Err(Failure::new(Exit::Usage, message).mend("99 Hz is the default; 999 Hz gives fine detail"));
    }
    if let Some(max) = Limits::read().perf_event_max_sample_rate
        && i64::try_from(hz).is_ok_and(|hz| hz > max)
    {
        let message = format!("-F {hz}: kernel.perf_event_max_sample_rate is {max}");
        let mend = format!("use -F {max}, or: sysctl kernel.perf_event_max_sample_rate={hz}");
        return Err(Failure::new(Exit::Usage, message).mend(mend));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn resolved(words: &[&str]) -> Result<(Vec<Chosen>, u64), String> {
        let cli = Cli::try_parse_from(["profiler", "record"].iter().chain(words)).unwrap();
        let Command::Record(args) = cli.command else { panic!("not record") };
        resolve(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn events_are_between_commas() {
        assert_eq!(split("a,b"), ["a", "b"]);
        assert_eq!(split(""), [""]);
        assert_eq!(split("a,,b,"), ["a", "", "b", ""]);
        assert_eq!(split("tracepoint:c:n/x == 1, y/,cpu"), ["tracepoint:c:n/x == 1, y/", "cpu"]);
        assert_eq!(split("cpu,tracepoint:c:n,uprobe:/a,b"), ["cpu", "tracepoint:c:n", "uprobe:/a", "b"]);
        assert_eq!(split("tracepoint:c:n/x,y"), ["tracepoint:c:n/x,y"]);
    }

    #[test]
    fn calls_belong_to_the_event_before_them() {
        let calls = |event, calls: &[&str]| Chosen {
            event,
            part: Part::Calls(calls.iter().map(|&call| call.to_owned()).collect()),
        };
        let chosen = |text: &str| resolved(&["-e", text]).map(|(events, _)| events);
        assert_eq!(
            chosen("syscall-time:read,syscalls:futex,syscall-time:write,openat,read"),
            Ok(vec![
                calls(Event::SyscallTime, &["read", "write", "openat"]),
                calls(Event::Syscalls, &["futex"]),
            ])
        );
        assert_eq!(chosen("syscalls:read,syscalls,write"), Err(resolved(&["-e", "write"]).unwrap_err()));
        assert_eq!(
            chosen("syscalls,cpu,syscalls:read,write"),
            Ok(vec![Chosen::whole(Event::Syscalls), Chosen::whole(Event::Cpu)])
        );
        assert!(chosen("syscalls:read,cpuu").unwrap_err().contains("cpuu"));
    }

    #[test]
    fn events_and_the_options_that_go_with_them() {
        let (cpu, switches) = (Chosen::whole(Event::Cpu), Chosen::whole(Event::ContextSwitches));
        assert_eq!(resolved(&[]), Ok((vec![cpu.clone()], 99)));
        assert_eq!(resolved(&["-e", "cpu,cpu", "-F", "999"]), Ok((vec![cpu.clone()], 999)));
        assert_eq!(resolved(&["-e", "context-switches", "--kernel-only"]), Ok((vec![switches.clone()], 0)));
        assert_eq!(resolved(&["-e", "context-switches,cpu", "--idle"]), Ok((vec![switches, cpu], 99)));
        for (words, part) in [
            (&["-e", "switches"][..], "no such event"),
            (&["-e", ""], "no such event"),
            (&["-e", "context-switches", "-F", "99"], "-F does not go with"),
            (&["-e", "context-switches", "--idle"], "--idle does not go with"),
            (&["-e", "context-switches", "--user-only"], "--user-only does not go with"),
            (&["-e", "cpu,context-switches", "--user-only"], "--user-only does not go with"),
            (&["-F", "0"], "between 1 and"),
            (&["-e", "runq", "--min-block", "1ms"], "--min-block is about"),
            (&["--wakers"], "--wakers is about"),
        ] {
            let error = resolved(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
