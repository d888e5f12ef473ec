//! Tests of the store as a whole: what comes out is what went in.

mod sums;
pub mod windows;

use std::time::Duration;

use super::{Limits, Range};

const ALWAYS: Range = Range { from_unix_ns: 0, to_unix_ns: u64::MAX };

/// Limits that nothing reaches.
const WIDE: Limits = Limits { max_age: Duration::from_secs(400 * 86_400), max_bytes: 1 << 40 };
