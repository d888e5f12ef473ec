//! The head of the report: where, when, how and how much.

use std::io::{self, Write};

use crate::render::{RenderOptions, SECTIONS, tally::Tally, units};

/// Writes the header and the index of sections.
pub fn write(tally: &Tally<'_>, options: &RenderOptions, out: &mut dyn Write) -> io::Result<()> {
    let meta = &tally.profile.meta;
    let known = |text: &str| if text.is_empty() { "not known".to_owned() } else { text.to_owned() };
    let mut line = |key: &str, value: &str| writeln!(out, "{key:<18}{value}");
    line("Platform", &format!("{}, Linux {}", known(&meta.arch), known(&meta.kernel)))?;
    line("Host", &known(&meta.host))?;
    line("Processors", &if meta.cpus == 0 { known("") } else { format!("{} online", meta.cpus) })?;
    line("Start", &units::utc(meta.start_unix_ns))?;
    let seconds = meta.duration_ns as f64 / 1e9;
    line("Trace time", &format!("{seconds:.6} s ({} ns)", units::count(meta.duration_ns)))?;
    line("Target", &known(&meta.target))?;
    let mut mode = format!("{}, sampled by {}", known(&meta.events.join(", ")), known(&meta.sampler));
    if meta.frequency_hz != 0 {
        mode += &format!(" at {} Hz on each CPU", meta.frequency_hz);
    }
    if let Some(reason) = &meta.sampler_reason {
        mode += &format!(" ({reason})");
    }
    line("Mode", &mode)?;
    if let Some(selection) = &options.selection {
        line("Selection", selection)?;
    }
    line("TOTAL TICKS", &units::prose(tally.total, tally.sample_type))?;
    let clipping = if options.clip_percent > 0.0 {
        format!("lines below {} % of the total are not shown", options.clip_percent)
    } else {
        "none".to_owned()
    };
    line("Clipping", &clipping)?;
    writeln!(out, "\nEvery % is of TOTAL TICKS. Sections:")?;
    for section in SECTIONS.iter().filter(|section| section.is_shown(options)) {
        writeln!(out, "  {}", section.title)?;
    }
    Ok(())
}
