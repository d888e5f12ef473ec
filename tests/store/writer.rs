//! Appends windows to a store until it is killed, and says the number of each that is kept.
//!
//! usage: store-writer DIR FIRST-NUMBER

use std::{env, error::Error, io::Write as _, path::Path, time::Duration};

use profiler::store::{Limits, Writer};
use profiler_tests::history;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(dir), Some(first)) = (arguments.next(), arguments.next()) else {
        return Err("usage: store-writer DIR FIRST-NUMBER".into());
    };
    let limits = Limits { max_age: Duration::from_secs(1 << 40), max_bytes: 1 << 30 };
    let mut writer = Writer::open(Path::new(&dir), limits)?;
    if let Some(note) = writer.take_notes().first() {
        return Err(note.to_string().into());
    }
    for number in first.parse().map(|first: u64| first..)? {
        writer.append(&history::window(number))?;
        // Merging is killed too.
        writer.maintain()?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    Ok(())
}
