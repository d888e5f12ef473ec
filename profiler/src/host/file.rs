//! Bounded reads of small kernel files (/proc, /sys), whose size is not known before they are read.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Most bytes read of a file that describes one thing (a process's status, a sysctl).
pub const SMALL: u64 = 64 << 10;

/// Most bytes read of a list that grows with the host (mounts, the children of a process).
pub const LARGE: u64 = 4 << 20;

/// The first `limit` bytes of a file. Reads to the end, because /proc files report size 0.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    // Most fit in: without room at the start, the first read would be one of 32 bytes, to see whether there is anything.
    let mut bytes = Vec::with_capacity(1024);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`read`] as text; bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read_text(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    Ok(String::from_utf8(read(path, limit)?)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The value of a line `key:<blanks>value` of a /proc status file.
pub fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn no_more_than_the_limit_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[b'x'; 1000]).unwrap();
        assert_eq!(read(file.path(), 10).unwrap().len(), 10);
        assert_eq!(read(file.path(), SMALL).unwrap().len(), 1000);
        assert_eq!(read("/proc/none/such", 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_field_is_found_by_its_whole_key() {
        let text = "Name:\tcat\nTgid:\t12\nPid:\t13\nNSpid:\t13\t1\n";
        assert_eq!(field(text, "Pid"), Some("13"));
        assert_eq!(field(text, "NSpid"), Some("13\t1"));
        assert_eq!(field(text, "PPid"), None);
    }
}
