//! Tests of the store as a whole: what comes out is what went in.

mod damage;
mod refused;
mod room;
mod sums;
pub mod windows;

use std::time::Duration;

use super::{Limits, Range, Writer};

const ALWAYS: Range = Range { from_unix_ns: 0, to_unix_ns: u64::MAX };

/// Limits that nothing reaches.
const WIDE: Limits = Limits { max_age: Duration::from_secs(400 * 86_400), max_bytes: 1 << 40 };

/// All that is to be done at that time.
fn maintain(writer: &mut Writer, now_unix_ns: u64) -> super::Maintained {
    let mut all = super::Maintained::default();
    for _ in 0..10_000 {
        let done = writer.maintain_at(now_unix_ns).unwrap();
        all.expired += done.expired;
        all.evicted += done.evicted;
        all.merged += done.merged;
        all.unused += done.unused;
        if !done.more {
            return all;
        }
    }
    panic!("maintaining does not come to an end");
}
