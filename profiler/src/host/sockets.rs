//! How many sockets there are (/proc/net/sockstat, Documentation: proc(5)).

use super::file;

/// Sockets in use in this network namespace; 0 if it is not known.
pub fn in_use() -> u64 {
    parse(&file::read_text("/proc/net/sockstat", file::SMALL).unwrap_or_default())
}

/// The line `sockets: used N`.
fn parse(text: &str) -> u64 {
    let used = text.lines().find_map(|line| line.strip_prefix("sockets: used "));
    used.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_by_the_kernel() {
        assert_eq!(parse("sockets: used 187\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 1\n"), 187);
        assert_eq!((parse(""), parse("sockets: used x\n")), (0, 0));
        assert!(in_use() > 0);
    }
}
