//! Measuring a process from outside, and statistics of the results.

use std::{
    mem::MaybeUninit,
    process::Command,
    time::{Duration, Instant},
};

use crate::process::{Failure, line};

/// What a process used, from its start to its end.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// User and kernel CPU time, its ended children included.
    pub cpu: Duration,
    /// Largest resident set, bytes.
    pub peak_rss_bytes: u64,
    /// From start to end.
    pub wall: Duration,
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or it fails.
pub fn run(command: &mut Command) -> Result<Usage, Failure> {
    let begin = Instant::now();
    let failed = |what: &str| Failure::new(format!("`{}`: {what}", line(command)));
    let description = failed("did not end with success");
    let child = command.spawn().map_err(|e| Failure::new(format!("cannot start: {e}")))?;
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: the child is ours and not waited for by anyone else; both buffers are of the right type and live.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, usage.as_mut_ptr()) };
    if waited < 0 || !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        return Err(description);
    }
    // SAFETY: zeroed is a valid rusage, and wait4 has filled it.
    let usage = unsafe { usage.assume_init() };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    Ok(Usage {
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
        wall: begin.elapsed(),
    })
}

/// CPU time of the calling thread.
pub fn thread_cpu_seconds() -> f64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: a buffer of the right type; zeroed is valid should the call fail.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The middle value; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The number of the first `"key":` in a JSON text whose keys are unique by construction (our own report's cost).
pub fn json_number(json: &str, key: &str) -> Option<f64> {
    let rest = json.split_once(&format!("\"{key}\":"))?.1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn numbers_are_found_by_key() {
        let json = r#"{"cost":{"start_ns":12,"naming_ns":345}}"#;
        assert_eq!(json_number(json, "naming_ns"), Some(345.0));
        assert_eq!(json_number(json, "absent"), None);
    }

    #[test]
    fn a_failing_subject_is_a_failure() {
        assert!(run(&mut Command::new("false")).is_err());
        assert!(run(&mut Command::new("true")).is_ok_and(|usage| usage.peak_rss_bytes > 0));
    }
}
