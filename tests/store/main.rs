//! The daemon's history under what can happen to it, and in the hands of other programs.

#![expect(clippy::unwrap_used, reason = "these are tests, their helper functions too")]

mod disk;
mod killed;
mod shell;

use std::time::Duration;

use profiler::store::{Limits, Query, Range, Reader};
use profiler_tests::history::{CPU_NS, PROCESSES};

const ALWAYS: Range = Range { from_unix_ns: 0, to_unix_ns: u64::MAX };

/// Limits that nothing reaches.
const WIDE: Limits = Limits { max_age: Duration::from_secs(1 << 40), max_bytes: 1 << 30 };

/// How many windows are kept, whose sums must be those that they were made with.
fn kept(reader: &Reader) -> u64 {
    let windows = reader.windows(ALWAYS).unwrap().iter().map(|window| window.merged).sum::<u64>();
    let count = windows * u64::from(PROCESSES);
    let profile = reader.profile(&Query::all(ALWAYS)).unwrap();
    let total = |name: &str| profile.column(name).map_or(0, |column| profile.total(column));
    assert_eq!((total("samples"), total("cpu")), (2 * count as i64, (CPU_NS * count) as i64));
    let accounts = reader.accounts(&Query::all(ALWAYS)).unwrap();
    let numbers_of = accounts.iter().flat_map(|account| &account.numbers);
    assert_eq!(numbers_of.map(|number| number.value).sum::<u64>(), (CPU_NS + 7) * count);
    windows
}
