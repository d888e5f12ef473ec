//! What `record -e` and `-F` ask for, and which other options fit it.

use super::{
    args::{RecordArgs, Sampler},
    error::{Exit, Failure},
};
use crate::{
    host::limits::Limits,
    model::name,
    probe::{self, Event, PROBES},
    session::FREQUENCY_HZ,
};

/// Samples per second and CPU if nothing else is said: no multiple of common timers' rates.
const DEFAULT_FREQUENCY_HZ: u64 = 99;

/// The event, and samples per second and CPU (0 if no timer makes them).
pub fn resolve(args: &RecordArgs) -> Result<(Event, u64), Failure> {
    let event = event(&args.event)?;
    match event {
        Event::Cpu => {
            let hz = args.frequency.unwrap_or(DEFAULT_FREQUENCY_HZ);
            check_frequency(hz)?;
            Ok((event, hz))
        }
        Event::ContextSwitches => {
            let other = [
                ("-F", args.frequency.is_some()),
                ("--sampler", args.sampler != Sampler::Auto),
                ("--idle", args.idle),
                ("--user-only", args.user_only),
            ];
            match other.into_iter().find(|(_, given)| *given) {
                None => Ok((event, 0)),
                Some((option, _)) => {
                    let message = format!(
                        "{option} does not go with -e {}: each switch from a task, in the kernel, is counted",
                        event.spec().name
                    );
                    Err(Failure::new(Exit::Usage, message)
                        .mend(format!("leave {option} out, or record -e cpu")))
                }
            }
        }
    }
}

fn event(names: &[String]) -> Result<Event, Failure> {
    let events = || PROBES.iter().map(|probe| probe.name).collect::<Vec<_>>().join(", ");
    let mut chosen: Option<Event> = None;
    for name in names {
        let Some(probe) = probe::find(name) else {
            let message = format!("-e {}: no such event", name::clean(name.as_bytes()));
            return Err(Failure::new(Exit::Usage, message).mend(format!("events: {}", events())));
        };
        if chosen.is_some_and(|event| event != probe.event) {
            let message = format!("-e {}: a recording has one event", names.join(","));
            return Err(Failure::new(Exit::Usage, message)
                .mend("record one of them, or run the profiler once for each at the same time"));
        }
        chosen = Some(probe.event);
    }
    chosen
        .ok_or_else(|| Failure::new(Exit::Usage, "-e: no event given").mend(format!("events: {}", events())))
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

    fn resolved(words: &[&str]) -> Result<(Event, u64), String> {
        let cli = Cli::try_parse_from(["profiler", "record"].iter().chain(words)).unwrap();
        let Command::Record(args) = cli.command else { panic!("not record") };
        resolve(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn one_event_and_the_options_that_go_with_it() {
        assert_eq!(resolved(&[]), Ok((Event::Cpu, 99)));
        assert_eq!(resolved(&["-e", "cpu,cpu", "-F", "999"]), Ok((Event::Cpu, 999)));
        assert_eq!(resolved(&["-e", "context-switches", "--kernel-only"]), Ok((Event::ContextSwitches, 0)));
        for (words, part) in [
            (&["-e", "cpu,context-switches"][..], "one event"),
            (&["-e", "cpu", "-e", "context-switches"], "one event"),
            (&["-e", "switches"], "no such event"),
            (&["-e", ""], "no such event"),
            (&["-e", "context-switches", "-F", "99"], "-F does not go with"),
            (&["-e", "context-switches", "--idle"], "--idle does not go with"),
            (&["-e", "context-switches", "--user-only"], "--user-only does not go with"),
            (&["-F", "0"], "between 1 and"),
        ] {
            let error = resolved(words).unwrap_err();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
