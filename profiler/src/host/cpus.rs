//! CPUs: the lists of /sys/devices/system/cpu (Documentation/admin-guide/cputopology.rst), like `0-3,8`.

use super::file;

/// CPUs beyond this number are not believed: the largest NR_CPUS of any architecture's Kconfig is 8192.
const MAX_CPU: u32 = 1 << 16;

/// CPU numbers, ascending, of a list like `0-3,8,10-11`. `None` if it is malformed; an empty list is no CPU.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
        if cpus.len() > MAX_CPU as usize {
            return None;
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

/// CPUs that run tasks now: one timer sample each. Falls back on sched_getaffinity(2)'s count without /sys.
pub fn online() -> Vec<u32> {
    list("online").unwrap_or_else(|| {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..u32::try_from(count).unwrap_or(1)).collect()
    })
}

/// CPUs that could be plugged in while recording: the length of a per-CPU map's value.
pub fn possible() -> Option<Vec<u32>> {
    list("possible")
}

fn list(name: &str) -> Option<Vec<u32>> {
    parse_list(&file::read_text(format!("/sys/devices/system/cpu/{name}"), file::SMALL).ok()?)
        .filter(|cpus| !cpus.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_as_the_kernel_prints_them() {
        assert_eq!(parse_list("0\n"), Some(vec![0]));
        assert_eq!(parse_list("0-3\n"), Some(vec![0, 1, 2, 3]));
        assert_eq!(parse_list("0-1,4,6-7\n"), Some(vec![0, 1, 4, 6, 7]));
        assert_eq!(parse_list("\n"), Some(vec![]));
    }

    #[test]
    fn malformed_and_absurd_lists_are_refused() {
        for bad in ["x", "3-1", "0-4294967295", "-", "1-", "0-3-5", "99999999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_host_has_a_cpu() {
        assert!(!online().is_empty());
        let possible = possible().unwrap();
        assert!(online().iter().all(|cpu| possible.contains(cpu)));
    }

    proptest! {
        #[test]
        fn a_printed_list_reads_back(cpus in prop::collection::btree_set(0..MAX_CPU, 0..100)) {
            let text = cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            prop_assert_eq!(parse_list(&text), Some(cpus.into_iter().collect()));
        }

        #[test]
        fn no_text_breaks_it(text in "[0-9,\\-\n ]{0,40}") {
            let _ = parse_list(&text);
        }
    }
}
